"""What a build cuts by each pattern and scope."""

from collections.abc import Mapping
from dataclasses import replace

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
from pruning.encoder import BaseModel
from pruning.identity import identify
from pruning.pipeline import MATRIX_WEIGHTS, build_variant, cut
from pruning.slim.convert import build_slim
from pruning.slim.packed import PackedBatch
from pruning.spec import SCOPES, Pattern, PruneSpec, Recover, Scope
from pruning.workbench import Workbench
from tests.pruning.parts import dense_model, half_a_block, logits_of, mask_of, masking

UNSTRUCTURED = Pattern.UNSTRUCTURED


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


@pytest.mark.parametrize("pattern", Pattern)
def test_each_recovery_brings_the_output_closer_to_the_dense_one(bench: Workbench, pattern: Pattern) -> None:
    dense = logits_of(dense_model(bench.base), bench.train.sequences)
    distance: dict[Recover, float] = {}
    for recover in (Recover.NONE, Recover.RECONSTRUCT, Recover.SEQUENTIAL):
        layers, _, _ = cut(bench, PruneSpec(sparsity=0.5, pattern=pattern, recover=recover))
        logits = logits_of(build_slim(bench.base, layers), bench.train.sequences)
        distance[recover] = float((logits - dense).square().mean())
    assert distance[Recover.SEQUENTIAL] < distance[Recover.RECONSTRUCT] < distance[Recover.NONE]
