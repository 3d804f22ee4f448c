"""The worked example first; then the laws of a build."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import pruning.cutting
import pruning.pipeline
import pruning.prediction
import pruning.scores
import pruning.slim.quantized
import pruning.workbench
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.errors import CacheError, ChecksumError, DataError, PrecisionError, SpecError, StoreError
from pruning.identity import identify
from pruning.masks.structures import ROUND_TO
from pruning.pipeline import MATRIX_WEIGHTS, build_variant, cut
from pruning.prediction import predict_logits
from pruning.quantization import quantize
from pruning.slim.convert import build_slim
from pruning.slim.packed import PackedBatch
from pruning.slim.quantized import multiplies_integers
from pruning.spec import SCOPES, Pattern, Precision, PruneSpec, Recover, Scope
from pruning.variants import WEIGHTS, Manifest, VariantStore
from pruning.workbench import Workbench
from tests.pruning.parts import dense_model, flip_byte, logits_of, mask_of, masking

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


def half_a_block(base: BaseModel) -> float:
    return ROUND_TO * base.shape.neuron_weights / base.shape.prunable_weights / 2 + 1e-9


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


# The workbench is only read from: no example can disturb the next.
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sparsity=st.floats(min_value=0, max_value=0.9), scorer=st.sampled_from(sorted(pruning.scores.SCORERS)))
def test_a_structured_cut_is_within_half_a_block_of_the_request(bench: Workbench, sparsity: float, scorer: str) -> None:
    layers, cost, achieved = cut(bench, PruneSpec(sparsity=sparsity, scorer=scorer))
    prunable = bench.base.shape.prunable_weights
    assert abs(achieved - sparsity) <= half_a_block(bench.base)
    assert achieved == pytest.approx(1 - cost.prunable_parameters / prunable, abs=1e-12)
    matrices = sum(part.numel() for name, part in layers.items() if part.ndim == 2)
    assert matrices == cost.prunable_parameters


def test_a_mask_without_recovery_gives_the_masked_models_logits(bench: Workbench) -> None:
    layers, _, _ = cut(bench, PruneSpec(sparsity=0.5, recover=Recover.NONE))
    mask = mask_of(bench.base.shape, *kept_units(bench.base, layers))
    batch = PackedBatch.from_sequences(bench.evaluation.sequences)
    with torch.inference_mode():
        masked = dense_model(bench.base)(batch, masking(mask, bench.base.shape.head_dim))
    slim = logits_of(build_slim(bench.base, layers), bench.evaluation.sequences)
    torch.testing.assert_close(slim, masked, atol=1e-4, rtol=0)


def kept_units(base: BaseModel, layers: Mapping[str, Tensor]) -> tuple[list[list[int]], list[list[int]]]:
    """Return the heads and the neurons of each layer that a cut kept, found by their output columns."""

    def places(layer: int, slot: str, width: int) -> list[int]:
        own, whole = layers[f"layers.{layer}.{slot}.weight"], base.tensors[f"layers.{layer}.{slot}.weight"]
        kept = own.split(width, dim=1) if own.numel() else ()
        return [i for i, unit in enumerate(whole.split(width, dim=1)) if any(torch.equal(unit, one) for one in kept)]

    heads = [places(layer, "attention_output", base.shape.head_dim) for layer in range(base.shape.num_layers)]
    return heads, [places(layer, "ffn_out", 1) for layer in range(base.shape.num_layers)]


def test_a_layerwise_structured_cut_is_another_variant_with_the_same_widths_everywhere(bench: Workbench) -> None:
    usual = PruneSpec(sparsity=0.5)
    manifest = build_variant(bench, replace(usual, scope=Scope.LAYERWISE))
    assert manifest.variant_id != identify(bench, usual)
    assert len(set(manifest.heads)) == len(set(manifest.neurons)) == 1


def zeros_of(base: BaseModel, scope: Scope, sparsity: float) -> int:
    """Return how many weights go: each scope rounds its own number."""
    weights = base.prunable_weights().values()
    sizes = {
        Scope.GLOBAL: [base.shape.prunable_weights],
        Scope.LAYERWISE: [weight.numel() for weight in weights],
        Scope.ROW: [weight.shape[1] for weight in weights for _ in range(weight.shape[0])],
    }[scope]
    return sum(size - round((1 - sparsity) * size) for size in sizes)


@pytest.mark.parametrize("scope", SCOPES[UNSTRUCTURED])
def test_a_spec_may_say_another_scope_than_the_scorers(bench: Workbench, scope: Scope) -> None:
    layers, _, achieved = cut(bench, PruneSpec(sparsity=0.7, pattern=UNSTRUCTURED, scorer="magnitude", scope=scope))
    assert achieved == pytest.approx(zeros_of(bench.base, scope, 0.7) / bench.base.shape.prunable_weights, abs=1e-12)
    rows = (layers["layers.0.ffn_in.weight"] != 0).sum(1)
    assert (rows.unique().tolist() == [round(0.3 * 32)]) == (scope is Scope.ROW)


@pytest.mark.parametrize("scorer", ["fisher", "wanda"])
def test_a_2_4_variant_keeps_two_of_every_four_inputs(bench: Workbench, scorer: str) -> None:
    manifest = build_variant(bench, PruneSpec(sparsity=0.5, pattern=Pattern.TWO_FOUR, scorer=scorer))
    _, layers = bench.store.load(manifest.variant_id)
    for name, part in layers.items():
        if part.ndim == 2:
            assert ((part.view(-1, 4) != 0).sum(1) == 2).all(), name
    assert manifest.achieved_sparsity == 0.5
    assert manifest.cost.macs == build_variant(bench, PruneSpec(sparsity=0.0)).cost.macs


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


@pytest.mark.parametrize("scorer", sorted(set(pruning.scores.SCORERS) - {"obs"}))
@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.9])
def test_an_unstructured_variant_has_exactly_the_zeros_asked_for(
    bench: Workbench, scorer: str, sparsity: float
) -> None:
    manifest = build_variant(bench, PruneSpec(sparsity=sparsity, pattern=UNSTRUCTURED, scorer=scorer))
    _, layers = bench.store.load(manifest.variant_id)
    total = bench.base.shape.prunable_weights
    zeros = sum(int((part == 0).sum()) for part in layers.values() if part.ndim == 2)
    assert zeros == zeros_of(bench.base, pruning.scores.scorer_named(scorer).scope, sparsity)
    assert manifest.achieved_sparsity == pytest.approx(zeros / total, abs=1e-12)
    assert manifest.cost.prunable_parameters == total - zeros


@pytest.mark.parametrize("recover", [Recover.RECONSTRUCT, Recover.SEQUENTIAL])
@pytest.mark.parametrize("pattern", [UNSTRUCTURED, Pattern.TWO_FOUR])
def test_recovery_moves_the_weights_that_are_kept_and_leaves_the_zeros_zero(
    bench: Workbench, pattern: Pattern, recover: Recover
) -> None:
    spec = PruneSpec(sparsity=0.5, pattern=pattern)
    plain, _, _ = cut(bench, spec)
    solved, cost, achieved = cut(bench, replace(spec, recover=recover))
    for name, tensor in plain.items():
        if name.endswith(MATRIX_WEIGHTS):
            assert torch.equal(solved[name] == 0, tensor == 0) and not torch.equal(solved[name], tensor)
    assert (cost, achieved) == cut(bench, spec)[1:]


def test_an_unstructured_variant_claims_no_saved_work_or_memory(bench: Workbench) -> None:
    dense = build_variant(bench, PruneSpec(sparsity=0.0)).cost
    sparse = build_variant(bench, PruneSpec(sparsity=0.5, pattern=UNSTRUCTURED)).cost
    assert (sparse.macs, sparse.bytes) == (dense.macs, dense.bytes)


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


@pytest.mark.parametrize("pattern", Pattern)
def test_each_recovery_brings_the_output_closer_to_the_dense_one(bench: Workbench, pattern: Pattern) -> None:
    dense = logits_of(dense_model(bench.base), bench.train.sequences)
    distance: dict[Recover, float] = {}
    for recover in (Recover.NONE, Recover.RECONSTRUCT, Recover.SEQUENTIAL):
        layers, _, _ = cut(bench, PruneSpec(sparsity=0.5, pattern=pattern, recover=recover))
        logits = logits_of(build_slim(bench.base, layers), bench.train.sequences)
        distance[recover] = float((logits - dense).square().mean())
    assert distance[Recover.SEQUENTIAL] < distance[Recover.RECONSTRUCT] < distance[Recover.NONE]


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


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
@pytest.mark.parametrize(
    ("precision", "dtype"), [(Precision.BFLOAT16, torch.bfloat16), (Precision.FLOAT16, torch.float16)]
)
def test_another_precision_is_the_same_cut_in_other_numbers(
    bench: Workbench, sparsity: float, precision: Precision, dtype: torch.dtype
) -> None:
    precisions = (Precision.FLOAT32, precision)
    exact, low = (build_variant(bench, PruneSpec(sparsity=sparsity, precision=one)) for one in precisions)
    assert (low.heads, low.neurons, low.achieved_sparsity) == (exact.heads, exact.neurons, exact.achieved_sparsity)
    assert low.cost == replace(exact.cost, bytes=exact.cost.bytes // 2)
    weights, rounded = (bench.store.load(manifest.variant_id)[1] for manifest in (exact, low))
    for name, weight in weights.items():
        assert rounded[name].dtype == dtype
        torch.testing.assert_close(rounded[name], weight.to(dtype))
    model = build_slim(bench.base, rounded)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    logits = predict_logits(model, bench.evaluation.sequences)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(
        logits, predict_logits(build_slim(bench.base, weights), bench.evaluation.sequences), atol=0.1, rtol=0.1
    )
    assert float((logits.argmax(1) == bench.evaluation.labels).double().mean()) == low.evaluation.accuracy
    assert not low.evaluation.screened


@pytest.mark.skipif(not multiplies_integers(), reason="this processor multiplies no 8-bit integers")
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95])
def test_an_int8_variant_is_nearly_the_same_cut_in_a_quarter_of_the_bytes(bench: Workbench, sparsity: float) -> None:
    exact, low = (
        build_variant(bench, PruneSpec(sparsity=sparsity, precision=one)) for one in (Precision.FLOAT32, Precision.INT8)
    )
    assert (low.heads, low.neurons, low.achieved_sparsity) == (exact.heads, exact.neurons, exact.achieved_sparsity)
    assert low.cost.macs == exact.cost.macs
    weights, integers = (bench.store.load(manifest.variant_id)[1] for manifest in (exact, low))
    for manifest, tensors in ((exact, weights), (low, integers)):
        held = build_slim(bench.base, tensors).state_dict().values()
        assert manifest.cost.bytes == sum(tensor.nbytes for tensor in held)
    assert low.cost.bytes < exact.cost.bytes
    for name in weights:
        matrix = name.endswith("weight") and "norm" not in name
        assert integers[name].dtype == (torch.int8 if matrix else torch.float32)
    model = build_slim(bench.base, integers)
    logits = predict_logits(model, bench.evaluation.sequences)
    reals = predict_logits(build_slim(bench.base, weights), bench.evaluation.sequences)
    assert (logits - reals).abs().mean() < 0.1 * reals.std()
    assert not low.evaluation.screened
    with pytest.raises(PrecisionError, match="a tap sees real values"):
        model(PackedBatch.from_sequences(bench.evaluation.sequences[:1]), lambda layer, site, values_RW, _: values_RW)
    alone = predict_logits(model, bench.evaluation.sequences[:1])
    torch.testing.assert_close(alone, logits[:1], atol=1e-5, rtol=1e-5)


def test_int8_is_refused_where_the_processor_multiplies_no_integers(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning.slim.quantized, "multiplies_integers", lambda: False)
    monkeypatch.setattr(pruning.cutting, "structure_mask", None)  # no cut is begun
    with pytest.raises(PrecisionError, match="needs an x86-64 processor with VNNI"):
        build_variant(bench, PruneSpec(sparsity=0.3, precision=Precision.INT8))


@pytest.mark.skipif(not multiplies_integers(), reason="this processor multiplies no 8-bit integers")
def test_int8_is_refused_where_an_input_is_not_finite(bench: Workbench) -> None:
    layers, _, _ = cut(bench, PruneSpec(sparsity=0.3))
    layers["layers.1.attention_norm.weight"] = torch.full_like(layers["layers.1.attention_norm.weight"], torch.nan)
    with pytest.raises(PrecisionError, match=r"inputs of layers\.1\.ffn_in are not finite on the calibration rows"):
        quantize(bench.base, layers, bench.train.sequences)


@pytest.mark.skipif(not multiplies_integers(), reason="this processor multiplies no 8-bit integers")
def test_a_breath_is_taken_between_the_batches_that_ranges_are_read_from(bench: Workbench) -> None:
    breaths: list[None] = []
    cut(bench, PruneSpec(sparsity=0.3, precision=Precision.INT8), lambda: breaths.append(None))
    assert breaths
