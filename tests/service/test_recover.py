"""``sparsedial recover``, from the command line to a variant that the builder serves."""

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import service.recovering
import service.training_bar
from pruning.errors import SpecError
from pruning.recovery.training import Progress
from pruning.spec import PruneSpec, Recover
from pruning.variants import Manifest
from pruning.workbench import Workbench
from service.builder import VariantBuilder
from service.cli import app
from service.operations import Cause
from service.protocol import Refusal
from service.recovering import device_named
from service.settings import Device
from service.sources import Sources
from service.training_bar import training_bar
from tests.conftest import write_rows

DISTILLED = PruneSpec(sparsity=0.5, recover=Recover.DISTILL)


@pytest.fixture(autouse=True)
def usual_priority(own_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A builder in the test's own process leaves that process's priority alone."""
    monkeypatch.setattr("service.builder.yield_cpu", lambda: None)


@pytest.fixture(scope="module")
def sources(tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tiny_model_dir, *tiny_rows, tmp_path_factory.mktemp("recovered") / "store")


def run(sources: Sources, *arguments: object) -> Result:
    given = [sources.model, "--train", sources.train, "--eval", sources.evaluation, "--store", sources.store]
    words = [str(word) for word in ("recover", *given, *arguments)]
    return CliRunner().invoke(app, words, catch_exceptions=False)


def test_a_cut_is_refused_until_it_is_recovered_then_built_like_any_other(sources: Sources, tmp_path: Path) -> None:
    builder = VariantBuilder(sources, threads=1, keep_variants=9)
    builder.calibrate()
    refusal = builder.build(DISTILLED)
    assert isinstance(refusal, Refusal) and refusal.cause is Cause.BUILD
    assert "run 'sparsedial recover MODEL --sparsity 0.5" in refusal.message

    rows = write_rows(tmp_path / "more.jsonl", 60, seed=3)
    result = run(sources, "--sparsity", 0.5, "--rows", rows, "--steps", 4, "--batch-rows", 8, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["store"] == str(sources.store)
    levels = {(row["requested_sparsity"], row["recover"]): row for row in document["levels"]}
    assert set(levels) == {(0.0, "reconstruct"), (0.5, "sequential"), (0.5, "distill")}
    distilled = levels[0.5, "distill"]
    assert distilled["speedup"] > 0
    assert document["training"]["step"] == 4 and document["recipe"]["steps"] == 4
    assert "training at 0.5: 25 %, step 1, loss" in result.stderr

    manifest = builder.build(DISTILLED)
    assert isinstance(manifest, Manifest) and manifest.variant_id == distilled["variant"]


def test_without_json_a_table_and_what_the_training_did(sources: Sources) -> None:
    result = run(sources, "--sparsity", 0.3, "--steps", 2)
    assert result.exit_code == 0, result.output
    assert "distill" in result.stdout
    assert "trained 2 steps" in result.stderr


def test_all_rows_train_and_not_those_alone_that_score(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workbench, "drawn", partial(Workbench.drawn, size=20))
    result = run(sources, "--sparsity", 0.4, "--steps", 1, "--json")
    assert result.exit_code == 0, result.output
    trained = json.loads(result.stdout)["training"]
    others = {row["text"] for row in rows_in(sources.evaluation)}
    assert trained["rows"] + trained["held_out_rows"] == sum(
        row["text"] not in others for row in rows_in(sources.train)
    )


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sparsity", 0], ["nothing to recover"]),
        (["--sparsity", 1.5], ["[0, 1)", "1.5"]),
        (["--steps", 0], ["steps must be a whole number", "0"]),
        (["--minutes", "nan"], ["minutes must be a number above 0"]),
        (["--temperature", 0], ["temperature must be"]),
        (["--scorer", "guess"], ["unknown scorer 'guess'"]),
        (["--criterion", "movement"], ["unknown criterion 'movement'", "seven_dynamic"]),
        (["--criterion", "platon"], ["give gradual above 0"]),
        (["--gradual", 0.5, "--pattern", "unstructured"], ["'mask_gradient' ranks heads and neurons", "magnitude"]),
        (["--pattern", "diagonal"], ["unknown pattern 'diagonal'"]),
        (["--rows", "nowhere.jsonl"], ["no file of labelled rows at nowhere.jsonl"]),
    ],
)
def test_bad_input_is_refused_in_words(sources: Sources, arguments: list[object], words: list[str]) -> None:
    result = run(sources, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert not [word for word in words if word not in result.stderr], result.stderr


def test_single_weights_go_bit_by_bit_as_the_options_say(sources: Sources) -> None:
    way = ["--gradual", 0.8, "--gradual-from", 0.2, "--criterion", "platon", "--cut-every", 2]
    result = run(sources, "--sparsity", 0.6, "--pattern", "unstructured", *way, "--steps", 5, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    recipe = {name: document["recipe"][name] for name in ("gradual", "gradual_from", "criterion", "cut_every")}
    assert recipe == {"gradual": 0.8, "gradual_from": 0.2, "criterion": "platon", "cut_every": 2}
    (distilled,) = (row for row in document["levels"] if row["recover"] == "distill")
    assert distilled["achieved_sparsity"] == pytest.approx(0.6, abs=1e-4)


def test_training_on_the_rows_that_judge_is_refused(sources: Sources) -> None:
    result = run(sources, "--rows", sources.evaluation)
    assert result.exit_code == 2
    assert "--rows and --eval are the same file" in result.stderr


def test_ctrl_c_says_how_to_go_on(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(service.recovering, "recover", interrupted)
    result = run(sources, "--steps", 2)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "with --resume goes on" in result.stderr


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device_named(Device.AUTO) == device_named(Device.CPU) == "cpu"
    with pytest.raises(SpecError, match="no GPU here"):
        device_named(Device.CUDA)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert device_named(Device.AUTO) == device_named(Device.CUDA) == "cuda"


def test_on_a_terminal_progress_moves_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(service.training_bar, "stderr", Console(file=written, force_terminal=True, width=100))
    with training_bar("training at 0.8") as report:
        report(Progress(step=40, share=0.25, loss=0.5, score=0.875, seconds_left=372.4))
    shown = written.getvalue()
    assert "training at 0.8" in shown and " 25%" in shown
    assert "step 40, loss 0.500, score 87.5%, 6:12 left" in shown


def test_in_a_log_progress_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(service.training_bar, "say", said.append)
    with training_bar("training") as report:
        for step in range(1, 101):
            report(Progress(step=step, share=step / 100, loss=0.25, score=0.9, seconds_left=100.0 - step))
    assert len(said) == 11
    assert said[0] == "training: 1 %, step 1, loss 0.250, score 90.0%, 1:39 left"
    assert said[-1] == "training: 100 %, step 100, loss 0.250, score 90.0%, 0:00 left"
