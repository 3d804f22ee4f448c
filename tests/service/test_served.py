"""A model that no route answers for never comes so far as to be served."""

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pruning.encoder import load_base_model
from pruning.errors import ModelError
from pruning.heads import Head
from service import builder as builder_module
from service.builder import VariantBuilder
from service.cli import app
from service.served import require_served
from service.sources import Sources
from tests.pruning.zoo import write_model, write_task_rows

METRICS = {Head.SCORE: "pearson", Head.TAGS: "entity_f1", Head.SPAN: "f1"}
UNSERVED = list(METRICS)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "distilbert", "electra"])
def test_a_classifier_of_any_architecture_is_served(tmp_path: Path, kind: str) -> None:
    require_served(load_base_model(write_model(tmp_path, kind)))


@pytest.mark.parametrize("head", UNSERVED)
def test_a_builder_refuses_another_head_naming_it_and_what_to_do(
    tmp_path: Path, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder_module, "yield_cpu", lambda: None)
    rows = write_task_rows(tmp_path / "rows.jsonl", head, 3)
    sources = Sources(write_model(tmp_path / "model", "bert", head), rows, rows, tmp_path / "store")
    with pytest.raises(ModelError, match=f"model is a model for {head}, which no route .*'sparsedial prepare'"):
        VariantBuilder(sources, 1, keep_variants=1)


@pytest.mark.parametrize("command", ["serve", "bench"])
@pytest.mark.parametrize("head", UNSERVED)
def test_commands_that_serve_refuse_another_head_before_the_model_is_scored(
    tmp_path: Path, head: Head, command: str
) -> None:
    rows = [write_task_rows(tmp_path / f"{seed}.jsonl", head, 3, seed=seed) for seed in (0, 1)]
    model, store = write_model(tmp_path / "model", "bert", head), tmp_path / "store"
    options = ["--train", rows[0], "--eval", rows[1], "--store", store]
    if command == "serve":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            options += ["--port", probe.getsockname()[1]]
    result = CliRunner().invoke(app, [command, *map(str, [model, *options])], catch_exceptions=False)
    assert result.exit_code == 2, result.output
    assert f"is a model for {head}, which no route" in " ".join(result.stderr.split())
    assert not (store / "calibration").exists()


@pytest.mark.parametrize("head", UNSERVED)
def test_commands_that_do_not_serve_take_every_head(
    tmp_path: Path, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    rows = [write_task_rows(tmp_path / f"{seed}.jsonl", head, 12, seed=seed) for seed in (0, 1)]
    model, store = write_model(tmp_path / "model", "bert", head), tmp_path / "store"
    place: list[object] = ["--store", store]
    given = ["--train", rows[0], "--eval", rows[1], *place]
    metric = METRICS[head]

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    levels = json.loads(run("prepare", model, *given, "--levels", "0.5", "--json"))["levels"]
    assert [(row["metric"], row["accuracy"]) for row in levels] == [(metric, None)] * 2
    assert json.loads(run("prune", "0.3", "--model", model, *given, "--json"))["metric"] == metric
    assert f"{metric} (95 %)" in run("frontier", model, *place, "--plot", tmp_path / "frontier.png")
    assert (tmp_path / "frontier.png").stat().st_size > 0
