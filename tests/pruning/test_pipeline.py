"""The worked example first; then the laws of a build."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pruning.cutting
import pruning.pipeline
import pruning.prediction
import pruning.scores
import pruning.slim.quantized
import pruning.workbench
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.errors import CacheError, ChecksumError, DataError, SpecError, StoreError
from pruning.identity import identify
from pruning.pipeline import build_variant, cut
from pruning.prediction import predict_logits
from pruning.slim.convert import build_slim
from pruning.spec import Pattern, PruneSpec, Recover, Scope
from pruning.variants import WEIGHTS, Manifest, VariantStore
from pruning.workbench import Workbench
from tests.pruning.parts import dense_model, flip_byte, half_a_block, logits_of

UNSTRUCTURED = Pattern.UNSTRUCTURED
SPECS = [
    PruneSpec(sparsity=0.0),
    PruneSpec(sparsity=0.5),
    PruneSpec(sparsity=0.5, recover=Recover.NONE),
    PruneSpec(sparsity=0.5, scorer="taylor"),
    PruneSpec(sparsity=0.5, scorer="magnitude"),
    PruneSpec(sparsity=0.5, pattern=UNSTRUCTURED),
    PruneSpec(sparsity=0.5, pattern=UNSTRUCTURED, scope=Scope.ROW),
    PruneSpec(sparsity=0.5, pattern=Pattern.TWO_FOUR, scorer="wanda"),
    PruneSpec(sparsity=0.5, pattern=UNSTRUCTURED, recover=Recover.RECONSTRUCT),
    PruneSpec(sparsity=0.5, pattern=Pattern.TWO_FOUR, recover=Recover.SEQUENTIAL),
    PruneSpec(sparsity=0.5, scorer="platon"),
    PruneSpec(sparsity=0.6),
]


def test_from_a_checkpoint_and_two_files_of_rows_to_a_variant_that_answers(
    tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path: Path
) -> None:
    bench = Workbench.open(tiny_model_dir, *tiny_rows, tmp_path / "store")
    bench.calibrate()
    manifest = build_variant(bench, PruneSpec(sparsity=0.5, scorer="fisher"))
    assert manifest.achieved_sparsity == pytest.approx(0.5, abs=half_a_block(bench.base))
    assert manifest.evaluation.rows == 30

    # Whoever serves it needs the base model and the store, nothing else.
    _, layers = VariantStore(tmp_path / "store").load(manifest.variant_id)
    logits = predict_logits(build_slim(bench.base, layers), bench.evaluation.sequences)
    assert float((logits.argmax(1) == bench.evaluation.labels).double().mean()) == manifest.evaluation.accuracy


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing should be built")


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_same_spec_twice_is_one_variant_and_nothing_is_rebuilt(
    bench: Workbench, spec: PruneSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_variant(bench, spec)
    monkeypatch.setattr(pruning.pipeline, "cut", refuse)
    assert build_variant(bench, spec) == first
    assert bench.store.list() == [first]


def test_a_built_variant_is_found_without_the_calibration(
    base: BaseModel, train: LabelledSet, judged: LabelledSet, bench: Workbench
) -> None:
    first = build_variant(bench, PruneSpec(sparsity=0.5))
    shutil.rmtree(bench.cache.folder)
    assert build_variant(Workbench(base, train, judged, bench.root), PruneSpec(sparsity=0.5)) == first


def test_sparsity_zero_is_the_dense_model_exactly(bench: Workbench) -> None:
    layers, cost, achieved = cut(bench, PruneSpec(sparsity=0.0))
    assert achieved == 0.0
    assert cost.prunable_parameters == bench.base.shape.prunable_weights
    sequences = bench.evaluation.sequences
    assert torch.equal(
        logits_of(build_slim(bench.base, layers), sequences), logits_of(dense_model(bench.base), sequences)
    )


@pytest.mark.parametrize("pattern", Pattern)
def test_the_dense_variant_agrees_with_itself_entirely(bench: Workbench, pattern: Pattern) -> None:
    assert build_variant(bench, PruneSpec(sparsity=0.0, pattern=pattern)).evaluation.agreement == 1.0


def test_the_dense_variant_needs_no_calibration(
    base: BaseModel, train: LabelledSet, judged: LabelledSet, tmp_path: Path
) -> None:
    bare = Workbench(base, train, judged, tmp_path)
    assert build_variant(bare, PruneSpec(sparsity=0.0)).achieved_sparsity == 0.0


def test_a_scorer_with_a_pass_takes_it_once_and_the_next_cut_reads(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    breaths: list[None] = []
    build_variant(bench, PruneSpec(sparsity=0.5, scorer="platon"), steps.append, lambda: breaths.append(None))
    assert steps == ["cut", "score, 32 of 40 rows", "score, 40 of 40 rows", "evaluate", "time", "write"] or (
        steps == ["cut", "score, 8 of 40 rows", "score, 40 of 40 rows", "evaluate", "time", "write"]
    )
    assert len(breaths) > 2
    monkeypatch.setattr(pruning.workbench, "weight_pass", refuse)
    for spec in (
        PruneSpec(sparsity=0.4, scorer="platon"),
        PruneSpec(sparsity=0.6, scorer="platon", pattern=UNSTRUCTURED),
        PruneSpec(sparsity=0.5, scorer="platon", pattern=Pattern.TWO_FOUR),
    ):
        build_variant(Workbench(bench.base, bench.train, bench.evaluation, bench.root), spec)


def test_altered_scores_are_refused_and_never_made_again_silently(bench: Workbench) -> None:
    bench.weight_scores(pruning.scores.scorer_named("seven"))
    (path,) = (bench.root / "scores").rglob("*.safetensors")
    flip_byte(path)
    with pytest.raises(CacheError, match=r"does not match its checksum .* the next cut by seven scores again"):
        cut(bench, PruneSpec(sparsity=0.5, scorer="seven"))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_rebuild_gives_the_identical_weights_file(bench: Workbench, tmp_path: Path, spec: PruneSpec) -> None:
    other_root = tmp_path / "other"
    shutil.copytree(bench.root / "calibration", other_root / "calibration")
    again = build_variant(Workbench(bench.base, bench.train, bench.evaluation, other_root), spec)
    assert again.weights_sha256 == build_variant(bench, spec).weights_sha256


def test_a_calibration_made_anew_gives_the_identical_variant(
    base: BaseModel, train: LabelledSet, judged: LabelledSet, bench: Workbench, tmp_path: Path
) -> None:
    anew = Workbench(base, train, judged, tmp_path / "anew")
    anew.calibrate()
    first, second = (build_variant(each, PruneSpec(sparsity=0.5)) for each in (bench, anew))
    assert (first.variant_id, first.weights_sha256) == (second.variant_id, second.weights_sha256)


def test_the_widths_in_the_manifest_are_those_of_the_weights(bench: Workbench) -> None:
    manifest = build_variant(bench, PruneSpec(sparsity=0.6))
    _, layers = bench.store.load(manifest.variant_id)
    assert manifest.heads == [layers[f"layers.{i}.attention_output.weight"].shape[1] // 8 for i in (0, 1)]
    assert manifest.neurons == [layers[f"layers.{i}.ffn_out.weight"].shape[1] for i in (0, 1)]


def test_the_steps_are_told_as_they_begin_and_timed(bench: Workbench) -> None:
    steps: list[str] = []
    manifest = build_variant(bench, PruneSpec(sparsity=0.5), steps.append)
    assert steps == ["cut", "evaluate", "time", "write"]
    assert set(manifest.build_seconds) == {"cut", "evaluate", "time"}
    assert all(seconds >= 0 for seconds in manifest.build_seconds.values())


def test_an_unknown_scorer_is_refused_before_anything_is_built(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning.pipeline, "cut", refuse)
    with pytest.raises(SpecError, match="unknown scorer 'fischer'"):
        build_variant(bench, PruneSpec(sparsity=0.5, scorer="fischer"))


def test_a_sparsity_that_leaves_nothing_is_refused_and_stores_nothing(bench: Workbench) -> None:
    with pytest.raises(SpecError, match=r"0\.999"):
        build_variant(bench, PruneSpec(sparsity=0.999))
    assert bench.store.list() == []


def test_a_cut_without_calibration_is_refused(
    base: BaseModel, train: LabelledSet, judged: LabelledSet, tmp_path: Path
) -> None:
    with pytest.raises(CacheError, match="run 'sparsedial prepare' first"):
        build_variant(Workbench(base, train, judged, tmp_path), PruneSpec(sparsity=0.5))


@pytest.mark.parametrize("recover", [Recover.RECONSTRUCT, Recover.SEQUENTIAL])
@pytest.mark.parametrize("pattern", [Pattern.STRUCTURED, UNSTRUCTURED])
def test_too_few_tokens_to_recover_on_are_refused_with_the_remedy(
    bench: Workbench, pattern: Pattern, recover: Recover
) -> None:
    few = bench.train.subset(range(6))  # the shortest
    tokens = sum(len(sequence.ids) for sequence in few.sequences)
    assert tokens < bench.base.shape.ffn
    poor = Workbench(bench.base, few, bench.evaluation, bench.root)
    poor.calibrate()
    spec = PruneSpec(sparsity=0.5, pattern=pattern, recover=recover)
    with pytest.raises(DataError, match=f"{tokens} calibration tokens are too few .* 64 inputs.* use recover='none'"):
        cut(poor, spec)
    cut(poor, replace(spec, recover=Recover.NONE))


def test_a_full_disk_loses_the_variant_and_nothing_else(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    kept = build_variant(bench, PruneSpec(sparsity=0.3))
    with monkeypatch.context() as full:
        full.setattr("pruning.variants.save_file", no_space)
        with pytest.raises(StoreError, match="No space left on device"):
            build_variant(bench, PruneSpec(sparsity=0.5))
    assert bench.store.list() == [kept]
    assert build_variant(bench, PruneSpec(sparsity=0.5)).spec.sparsity == 0.5


def test_altered_weights_are_never_served(bench: Workbench) -> None:
    manifest = build_variant(bench, PruneSpec(sparsity=0.5))
    flip_byte(bench.store.folder / manifest.variant_id / WEIGHTS)
    with pytest.raises(ChecksumError, match="delete the folder"):
        bench.store.load(manifest.variant_id)


def test_the_manifest_says_what_it_is_of(bench: Workbench) -> None:
    manifest: Manifest = build_variant(bench, PruneSpec(sparsity=0.5))
    assert manifest.base_digest == bench.base.digest
    assert manifest.spec == PruneSpec(sparsity=0.5)
    assert manifest.variant_id == identify(bench, manifest.spec)


def test_a_variant_is_worth_the_same_whether_or_not_the_machine_multiplies_bfloat16(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, worth = PruneSpec(sparsity=0.4, scorer="fisher"), []
    for supported in (True, False):
        monkeypatch.setattr(pruning.prediction, "multiplies_bfloat16", lambda supported=supported: supported)
        manifest = build_variant(bench, spec)
        shutil.rmtree(bench.store.folder / manifest.variant_id)
        assert manifest.evaluation.screened == supported
        worth.append(replace(manifest.evaluation, screened=False))
    assert worth[0] == worth[1]
