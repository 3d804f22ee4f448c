"""A recovered cut is a variant like any other."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pruning.recovery.distillation
from pruning.data import LabelledSet
from pruning.errors import CacheError, DeviceMemoryError, RecoveryError, SpecError
from pruning.frontier import frontier_rows
from pruning.identity import cut_id, identify
from pruning.pipeline import build_variant, cut
from pruning.prediction import predict_logits
from pruning.recovered import LAYERS
from pruning.recovery.distillation import checkpoints_of, recover
from pruning.recovery.training import Progress
from pruning.slim.convert import build_slim, head_dims
from pruning.slim.quantized import multiplies_integers
from pruning.spec import Pattern, Precision, PruneSpec, Recover, Structures
from pruning.workbench import Workbench
from tests.pruning.parts import everything_under, flip_byte
from tests.pruning.recovery.conftest import HALF, SHORT, ZEROS

DISTILLED = replace(HALF, recover=Recover.DISTILL)


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing should be trained")


def test_a_recovered_cut_is_in_the_store_and_the_frontier(bench: Workbench, rows: LabelledSet) -> None:
    manifest, recovered = recover(bench, HALF, rows, SHORT)
    assert manifest.spec == DISTILLED
    _, layers = bench.store.load(manifest.variant_id)
    trained = bench.recovered.load(recovered)
    assert layers.keys() == trained.keys() and all(torch.equal(layers[name], trained[name]) for name in layers)
    logits = predict_logits(build_slim(bench.base, layers), bench.evaluation.sequences)
    right = (logits.argmax(1) == bench.evaluation.labels).double().mean()
    assert float(right) == manifest.evaluation.accuracy

    before, cost, achieved = cut(bench, HALF)
    assert (manifest.cost, manifest.achieved_sparsity) == (cost, pytest.approx(achieved))
    assert any(not torch.equal(before[name], layers[name]) for name in before)
    (row,) = frontier_rows(bench.store)
    assert (row["recover"], row["variant"]) == ("distill", manifest.variant_id)
    assert recovered.training["step"] == 6 and recovered.recipe["batch_rows"] == 8


def test_a_cut_inside_heads_is_trained_like_any_other(bench: Workbench, rows: LabelledSet, tmp_path: Path) -> None:
    spec = replace(HALF, structures=Structures.UNITS)

    def kill(progress: Progress) -> None:
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(RecoveryError, match=r"--pattern structured --structures heads\+units\+neurons --rows ROWS"):
        build_variant(bench, replace(spec, recover=Recover.DISTILL))
    manifest, recovered = recover(bench, spec, rows, SHORT)
    before, cost, _ = cut(bench, spec)
    assert manifest.cost == cost and manifest.head_dims is not None
    trained = bench.recovered.load(recovered)
    assert head_dims(trained, bench.base.shape) == head_dims(before, bench.base.shape) == manifest.head_dims
    assert any(not torch.equal(before[name], trained[name]) for name in before)
    other = replace(bench, root=tmp_path / "other")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "calibration").symlink_to(bench.cache.folder)
    with pytest.raises(KeyboardInterrupt):
        recover(other, spec, rows, SHORT, report=kill)
    assert recover(other, spec, rows, SHORT, resume=True)[1].digest == recovered.digest


def test_nothing_else_stays_behind(bench: Workbench, rows: LabelledSet) -> None:
    recover(bench, HALF, rows, SHORT)
    left = Counter(name.split("/")[0] for name in everything_under(bench.root))
    assert left.keys() <= {"calibration", "curves", "recovered", "recovering", "references", "variants"}
    assert left["recovering"] <= 1


def test_what_was_not_trained_is_refused_with_the_command_that_does(bench: Workbench) -> None:
    command = "sparsedial recover MODEL --sparsity 0.5 --scorer fisher --pattern structured --rows ROWS"
    with pytest.raises(RecoveryError, match=command):
        build_variant(bench, DISTILLED)


def test_a_variant_that_the_store_let_go_is_built_again_without_training(
    bench: Workbench, rows: LabelledSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = recover(bench, HALF, rows, SHORT)
    bench.store.keep_newest(0, ())
    assert first.variant_id not in bench.store
    monkeypatch.setattr(pruning.recovery.distillation, "train", refuse)
    again = build_variant(bench, DISTILLED)
    assert (again.variant_id, again.weights_sha256) == (first.variant_id, first.weights_sha256)
    assert recover(bench, HALF, rows, SHORT)[0] == again


def test_the_recipe_that_was_asked_for_last_stands_for_the_cut(bench: Workbench, rows: LabelledSet) -> None:
    first, _ = recover(bench, HALF, rows, SHORT)
    second, _ = recover(bench, HALF, rows, replace(SHORT, seed=1))
    third, _ = recover(bench, HALF, rows.subset(range(100)), SHORT)
    assert len({first.variant_id, second.variant_id, third.variant_id}) == 3
    assert identify(bench, DISTILLED) == third.variant_id
    recover(bench, HALF, rows, SHORT)
    assert identify(bench, DISTILLED) == first.variant_id


def test_other_evaluation_rows_need_no_other_training(
    bench: Workbench, rows: LabelledSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = recover(bench, HALF, rows, SHORT)
    other = Workbench(bench.base, bench.train, bench.evaluation.subset(range(59)), bench.root)
    assert cut_id(other, DISTILLED) == cut_id(bench, DISTILLED)
    assert build_variant(other, DISTILLED).variant_id != first.variant_id


def test_another_cut_is_not_recovered_by_this_training(bench: Workbench, rows: LabelledSet) -> None:
    recover(bench, HALF, rows, SHORT)
    for other in (
        replace(DISTILLED, sparsity=0.4),
        replace(DISTILLED, scorer="taylor"),
        replace(ZEROS, recover=Recover.DISTILL),
    ):
        with pytest.raises(RecoveryError):
            build_variant(bench, other)


def test_an_unstructured_cut_keeps_its_pattern(bench: Workbench, rows: LabelledSet) -> None:
    manifest, recovered = recover(bench, ZEROS, rows, SHORT)
    before, cost, achieved = cut(bench, ZEROS)
    after = bench.recovered.load(recovered)
    assert all(torch.equal(before[name] != 0, after[name] != 0) for name in before if before[name].ndim == 2)
    assert manifest.achieved_sparsity == pytest.approx(achieved)
    assert manifest.cost == cost
    assert manifest.spec.pattern is Pattern.UNSTRUCTURED


@pytest.mark.parametrize("precision", [Precision.BFLOAT16, Precision.INT8])
def test_cheaper_numbers_are_made_of_the_recovered_weights(
    bench: Workbench, rows: LabelledSet, precision: Precision
) -> None:
    if precision is Precision.INT8 and not multiplies_integers():
        pytest.skip("this processor does not multiply integers")
    _, recovered = recover(bench, HALF, rows, SHORT)
    manifest = build_variant(bench, replace(DISTILLED, precision=precision))
    _, layers = bench.store.load(manifest.variant_id)
    trained = bench.recovered.load(recovered)
    name = "layers.0.ffn_out.bias"
    assert torch.equal(layers[name].float(), trained[name].to(layers[name].dtype).float())
    assert manifest.cost.bytes < build_variant(bench, DISTILLED).cost.bytes


def test_an_altered_file_is_refused(bench: Workbench, rows: LabelledSet) -> None:
    _, recovered = recover(bench, HALF, rows, SHORT)
    bench.store.keep_newest(0, ())
    flip_byte(bench.recovered.folder / recovered.cut / recovered.recipe_id / LAYERS)
    with pytest.raises(CacheError, match="run 'sparsedial recover' again"):
        build_variant(bench, DISTILLED)


def test_an_interrupted_run_is_resumed_or_begun_anew_as_asked(
    bench: Workbench, rows: LabelledSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    steps: list[int] = []
    for resume, first in ((True, 5), (False, 1)):
        with pytest.raises(KeyboardInterrupt):
            recover(bench, HALF, rows, SHORT, report=stop)
        checkpoints = checkpoints_of(bench.root, cut_id(bench, DISTILLED), SHORT.digest_with(rows.digest))
        assert checkpoints.newest()[0].step == 4
        steps.clear()
        recover(bench, HALF, rows, SHORT, resume=resume, report=lambda progress: steps.append(progress.step))
        assert steps[0] == first
        assert not checkpoints
        (bench.recovered.folder).rename(bench.root / f"taken away {resume}")


def test_without_a_checkpoint_resume_begins(bench: Workbench, rows: LabelledSet) -> None:
    assert recover(bench, HALF, rows, SHORT, resume=True)[1].training["step"] == 6


def test_rows_that_judge_are_not_trained_on(bench: Workbench, rows: LabelledSet) -> None:
    judging = Workbench(bench.base, bench.train, rows.subset(range(30)), bench.root)
    _, recovered = recover(judging, HALF, rows, SHORT)
    known = {tuple(sequence.ids) for sequence in rows.sequences[:30]}
    left = sum(tuple(sequence.ids) not in known for sequence in rows.sequences)
    assert recovered.training["rows"] + recovered.training["held_out_rows"] == left


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_want_of_memory_is_refused_with_what_helps_and_the_last_checkpoint_is_whole(
    bench: Workbench, rows: LabelledSet, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(progress: Progress) -> None:
        if progress.step == 5:
            raise error

    with pytest.raises(DeviceMemoryError, match=r"no memory is left for training on cpu with 8 rows a step.*--resume"):
        recover(bench, HALF, rows, SHORT, report=full)
    name = cut_id(bench, DISTILLED), SHORT.digest_with(rows.digest)
    assert checkpoints_of(bench.root, *name).newest()[0].step == 4
    assert bench.recovered.find(*name) is None
    assert recover(bench, HALF, rows, SHORT, resume=True)[1].training["step"] == 6


def test_nothing_to_recover_is_refused(bench: Workbench, rows: LabelledSet) -> None:
    with pytest.raises(SpecError, match="nothing to recover"):
        recover(bench, PruneSpec(sparsity=0.0), rows, SHORT)
