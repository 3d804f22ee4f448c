"""Cuts inside heads, and of whole sublayers, from the spec to the store."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pruning.identity
import pruning.workbench
from pruning.cost import HeadDims
from pruning.cutting import carried_out, mask_of, ranking_of
from pruning.encoder import BaseModel
from pruning.errors import CacheError, SpecError
from pruning.identity import identify
from pruning.masks.structures import structure_mask
from pruning.pipeline import build_variant, cut
from pruning.prediction import predict_logits
from pruning.reconstruction import solved_keys
from pruning.scores import SCORERS, Fisher
from pruning.slim.convert import build_slim, dense_mask, head_dims, slim_layers
from pruning.slim.quantized import multiplies_integers
from pruning.spec import Precision, PruneSpec, Recover, Structures
from pruning.variants import MANIFEST
from pruning.workbench import Workbench
from tests.pruning.parts import logits_of, with_units
from tests.pruning.zoo import library_outputs

UNITS, SUBLAYERS = Structures.UNITS, Structures.SUBLAYERS


def test_a_variant_cut_inside_heads_answers_as_the_dense_model_does_with_the_units_masked(bench: Workbench) -> None:
    spec = PruneSpec(sparsity=0.6, structures=UNITS, recover=Recover.NONE)
    mask = mask_of(bench, ranking_of(bench, spec), spec)
    manifest = build_variant(bench, spec)
    assert manifest.head_dims is not None and min(min(dims) for dims in manifest.head_dims) < 8
    assert manifest.head_dims == mask.head_dims(bench.base.shape)
    assert manifest.achieved_sparsity == pytest.approx(mask.sparsity(bench.base.shape))
    _, layers = bench.store.load(manifest.variant_id)
    sequences = bench.evaluation.sequences
    ours = predict_logits(build_slim(bench.base, layers), sequences)
    torch.testing.assert_close(ours, library_outputs(bench.base, sequences, mask), atol=1e-4, rtol=0)
    matrices = sum(part.numel() for part in layers.values() if part.ndim == 2)
    assert matrices == manifest.cost.prunable_parameters


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_every_scorer_cuts_inside_heads_to_what_is_asked(bench: Workbench, scorer: str) -> None:
    layers, cost, achieved = cut(bench, PruneSpec(sparsity=0.5, scorer=scorer, structures=UNITS))
    assert achieved == pytest.approx(0.5, abs=0.02)
    assert achieved == pytest.approx(1 - cost.prunable_parameters / bench.base.shape.prunable_weights)
    assert logits_of(build_slim(bench.base, layers), bench.evaluation.sequences).isfinite().all()


@pytest.mark.parametrize("recover", [Recover.RECONSTRUCT, Recover.SEQUENTIAL])
def test_recovery_brings_a_cut_inside_heads_nearer_to_the_dense_model(bench: Workbench, recover: Recover) -> None:
    spec = PruneSpec(sparsity=0.4, structures=UNITS)
    mask = mask_of(bench, ranking_of(bench, spec), spec)
    dense = bench.reference()
    errors = []
    for one in (Recover.NONE, recover):
        layers, _, _ = carried_out(bench, mask, PruneSpec(sparsity=0.4, structures=UNITS, recover=one))
        errors.append(float((logits_of(build_slim(bench.base, layers), bench.evaluation.sequences) - dense).norm()))
    assert errors[1] < errors[0]


def test_keys_make_up_for_units_that_the_kept_ones_can_say(base: BaseModel, bench: Workbench) -> None:
    """Queries that are multiples of one another need one dimension: with the keys solved, nothing is lost."""
    tensors = dict(base.tensors)
    for part in ("weight", "bias"):
        rows = tensors[f"layers.0.query.{part}"].clone()
        for head in range(4):
            for unit in range(1, 8):
                rows[8 * head + unit] = 0.1 * unit * rows[8 * head]
        tensors[f"layers.0.query.{part}"] = rows
    other = Workbench(
        replace(base, tensors=tensors, weights_digest="changed"), bench.train, bench.evaluation, bench.root
    )
    other.calibrate()
    mask = with_units(dense_mask(base.shape), base.shape, [HeadDims(1, 8), HeadDims(8, 8)])
    solved = solved_keys(other.base, mask, other.unit_statistics())
    assert set(solved) == {(0, "key")}
    dense = other.reference()
    for outputs, exact in ((solved, True), ({}, False)):
        logits = logits_of(build_slim(other.base, slim_layers(other.base, mask, outputs)), bench.evaluation.sequences)
        assert (float((logits - dense).abs().max()) < 5e-3) is exact


@pytest.mark.parametrize(
    "precision",
    [
        Precision.BFLOAT16,
        pytest.param(
            Precision.INT8,
            marks=pytest.mark.skipif(not multiplies_integers(), reason="this processor multiplies no 8-bit integers"),
        ),
    ],
)
def test_cheaper_numbers_are_the_same_cut_inside_heads(bench: Workbench, precision: Precision) -> None:
    exact, low = (
        build_variant(bench, PruneSpec(sparsity=0.5, structures=UNITS, precision=one))
        for one in (Precision.FLOAT32, precision)
    )
    assert (low.heads, low.head_dims, low.cost.macs) == (exact.heads, exact.head_dims, exact.cost.macs)
    reals, rounded = (
        predict_logits(build_slim(bench.base, bench.store.load(one.variant_id)[1]), bench.evaluation.sequences)
        for one in (exact, low)
    )
    assert (rounded - reals).abs().mean() < 0.1 * reals.std()


def test_a_manifest_tells_the_dimensions_of_narrow_heads_alone(bench: Workbench) -> None:
    whole = build_variant(bench, PruneSpec(sparsity=0.5))
    narrow = build_variant(bench, PruneSpec(sparsity=0.5, structures=UNITS))
    assert bench.store.manifest(narrow.variant_id) == narrow
    written = json.loads((bench.store.folder / whole.variant_id / MANIFEST).read_text())
    assert "head_dims" not in written and "structures" not in written["spec"]
    assert bench.store.manifest(whole.variant_id).head_dims is None


def test_what_goes_is_part_of_a_variants_identity_only_where_it_is_not_the_usual(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {kind: identify(bench, PruneSpec(sparsity=0.5, structures=kind)) for kind in Structures}
    assert len(set(before.values())) == 3
    monkeypatch.setattr(pruning.identity, "UNIT_PASS_VERSION", 99)
    after = {kind: identify(bench, PruneSpec(sparsity=0.5, structures=kind)) for kind in Structures}
    assert {kind for kind in Structures if after[kind] != before[kind]} == {UNITS}
    assert len({identify(bench, PruneSpec(sparsity=0.0, structures=kind)) for kind in Structures}) == 1


def test_heads_and_neurons_need_no_pass_for_units(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning.workbench, "unit_pass", lambda *_, **__: pytest.fail("taken"))
    for kind in (Structures.HEADS, SUBLAYERS):
        cut(bench, PruneSpec(sparsity=0.5, structures=kind))


def test_curves_inside_heads_are_solved_once(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = PruneSpec(sparsity=0.5, structures=UNITS)
    first, _, _ = cut(bench, spec)
    assert bench.has_curves(Fisher(), UNITS) and bench.has_curves(Fisher())
    monkeypatch.setattr(pruning.workbench, "attention_curves", lambda *_: pytest.fail("solved again"))
    again = Workbench(bench.base, bench.train, bench.evaluation, bench.root)
    second, _, _ = cut(again, spec)
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7])
def test_sublayers_go_as_a_whole(bench: Workbench, sparsity: float) -> None:
    layers, cost, achieved = cut(bench, PruneSpec(sparsity=sparsity, structures=SUBLAYERS))
    shape = bench.base.shape
    slots = ("attention_output", "ffn_out")
    widths = [layers[f"layers.{layer}.{slot}.weight"].shape[1] for layer in (0, 1) for slot in slots]
    assert set(widths) <= {0, shape.hidden, shape.ffn} and 0 in widths
    assert achieved == 1 - cost.prunable_parameters / shape.prunable_weights
    assert head_dims(layers, shape) == [shape.whole] * 2
    pieces = [shape.num_heads * shape.head_weights, shape.ffn * shape.neuron_weights]
    assert abs(achieved - sparsity) * shape.prunable_weights <= max(pieces) / 2


def test_the_cheapest_sublayers_go(bench: Workbench) -> None:
    curves = bench.curves(Fisher(), structures=SUBLAYERS)
    assert [len(curve.costs) for curve in curves] == [2] * 4
    shape = bench.base.shape
    slopes = [curve.costs[1] / curve.weights_after(1, shape) for curve in curves]
    for count in (1, 2, 3):
        cheapest = sorted(range(4), key=slopes.__getitem__)[:count]
        gone = sum(curves[index].weights_after(1, shape) for index in cheapest)
        mask = structure_mask(curves, shape, gone / shape.prunable_weights)
        empty = [not kept for layer in (0, 1) for kept in (mask.head_counts[layer], mask.neuron_counts[layer])]
        assert [index for index in range(4) if empty[index]] == sorted(cheapest)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("structures", [UNITS, SUBLAYERS])
def test_single_weights_are_no_structures(pattern: str, structures: Structures) -> None:
    with pytest.raises(SpecError, match=rf"structures='{re.escape(structures)}' .*pattern='{pattern}' leave it out"):
        PruneSpec(sparsity=0.5, pattern=pattern, structures=structures)  # type: ignore[arg-type]


def test_a_damaged_file_of_statistics_is_refused_by_name(bench: Workbench) -> None:
    bench.unit_statistics()
    [sums] = Path(bench.root / "scores").rglob("sums.safetensors")
    sums.write_bytes(sums.read_bytes()[:-1])
    with pytest.raises(CacheError, match="the next cut by units scores again"):
        bench.unit_statistics()
