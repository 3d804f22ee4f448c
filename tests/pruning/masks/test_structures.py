from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pruning.cost import Shape
from pruning.errors import SpecError
from pruning.masks.structures import (
    ROUND_TO,
    TOLERANCE,
    CostCurve,
    Kind,
    StructureMask,
    is_coarse,
    removed_after,
    structure_mask,
)

# One block of neurons weighs as much as one head, so the budget can always be met to half a block.
SHAPE = Shape(
    hidden=32, num_layers=3, num_heads=4, head_dim=8, ffn=64, vocabulary=32, positions=48, token_types=2, labels=2
)

# Not above 0.9: there the last head or block decides, and a test of its own says how.
sparsities = st.floats(min_value=0.0, max_value=0.9)


@dataclass(frozen=True)
class Scores:
    """What orders the structures of each sublayer, and what their going costs."""

    heads_LN: Tensor
    neurons_LF: Tensor


def distinct_scores(seed: int, shape: Shape = SHAPE) -> Scores:
    """Return scores no two of which are equal, heads' and neurons' on one scale."""
    generator = torch.Generator().manual_seed(seed)
    heads = shape.num_layers * shape.num_heads
    neurons = shape.num_layers * shape.ffn
    return Scores(
        (torch.randperm(heads, generator=generator) + 1.0).view(shape.num_layers, -1) / heads,
        (torch.randperm(neurons, generator=generator) + 1.0).view(shape.num_layers, -1) / neurons,
    )


def curves_of(scores: Scores) -> list[CostCurve]:
    """Return curves whose cost is the sum of the scores that are gone."""
    curves = []
    for layer in range(scores.heads_LN.shape[0]):
        for kind, values, step in ((Kind.HEAD, scores.heads_LN, 1), (Kind.NEURON, scores.neurons_LF, ROUND_TO)):
            order = torch.sort(values[layer], descending=True, stable=True).indices.flip(0)
            total = torch.cat([torch.zeros(1), values[layer][order].cumsum(0)])
            steps = range(-(-order.numel() // step) + 1)
            costs = tuple(float(total[removed_after(count, order.numel(), step)]) for count in steps)
            curves.append(CostCurve(layer=layer, kind=kind, order=order, step=step, costs=costs))
    return curves


def mask_at(scores: Scores, sparsity: float, shape: Shape = SHAPE) -> StructureMask:
    return structure_mask(curves_of(scores), shape, sparsity)


seeds = st.integers(min_value=0, max_value=2**32)


def test_sparsity_zero_keeps_everything() -> None:
    mask = mask_at(distinct_scores(0), 0.0)
    assert mask.heads_LN.all()
    assert mask.neurons_LF.all()


@given(seed=seeds, sparsity=sparsities)
def test_the_achieved_sparsity_is_within_half_a_block_of_the_request(seed: int, sparsity: float) -> None:
    block = ROUND_TO * SHAPE.neuron_weights / SHAPE.prunable_weights
    achieved = mask_at(distinct_scores(seed), sparsity).sparsity(SHAPE)
    assert abs(achieved - sparsity) <= block / 2 + 1e-9


@given(seed=seeds, sparsity=sparsities, ffn=st.sampled_from([40, 60, 100]))
def test_a_layer_that_is_no_whole_number_of_blocks_wide_is_counted_as_it_is(
    seed: int, sparsity: float, ffn: int
) -> None:
    shape = replace(SHAPE, ffn=ffn)
    block = ROUND_TO * shape.neuron_weights / shape.prunable_weights
    achieved = mask_at(distinct_scores(seed, shape), sparsity, shape).sparsity(shape)
    assert abs(achieved - sparsity) <= block / 2 + 1e-9


def encoder(hidden: int, layers: int, heads: int, ffn: int) -> Shape:
    return Shape(
        hidden=hidden,
        num_layers=layers,
        num_heads=heads,
        head_dim=hidden // heads,
        ffn=ffn,
        vocabulary=1,
        positions=1,
        token_types=1,
        labels=2,
    )


SMALL = [encoder(128, 2, 2, 512), encoder(128, 1, 2, 512), encoder(64, 2, 1, 256), encoder(64, 3, 2, 250)]


@pytest.mark.parametrize("shape", SMALL, ids=str)
@given(seed=seeds, sparsity=sparsities)
def test_where_a_head_is_too_large_blocks_of_neurons_fill_the_budget(shape: Shape, seed: int, sparsity: float) -> None:
    assert is_coarse(shape)
    mask = mask_at(distinct_scores(seed, shape), sparsity, shape)
    assert abs(mask.sparsity(shape) - sparsity) <= TOLERANCE + 1e-9
    assert all(count % ROUND_TO == 0 or count == shape.ffn for count in mask.neuron_counts)


def test_of_the_masks_that_meet_the_budget_the_cheapest_is_taken() -> None:
    shape = encoder(128, 2, 2, 512)  # a head is a twelfth of the encoder, a block of neurons an eighth of that
    head, block = shape.head_weights / shape.prunable_weights, 1 / 96
    dear, cheap = (tuple(price * count for count in range(33)) for price in (1.0, 0.01))

    def curves(costs: tuple[float, ...], heads: tuple[float, ...]) -> list[CostCurve]:
        kinds = ((Kind.HEAD, 2, 1, heads), (Kind.NEURON, 512, ROUND_TO, costs))
        return [
            CostCurve(layer=layer, kind=kind, order=torch.arange(size), step=step, costs=values)
            for layer in range(2)
            for kind, size, step, values in kinds
        ]

    by_heads = structure_mask(curves(dear, (0.0, 1.0, 2.0)), shape, 2.5 * head)
    assert (sum(by_heads.head_counts), sum(by_heads.neuron_counts)) == (2, 2 * 512 - 4 * ROUND_TO)
    by_neurons = structure_mask(curves(cheap, (0.0, 9.0, 18.0)), shape, 64 * block + 0.3 * head)
    assert sum(by_neurons.head_counts) == 3
    assert by_neurons.sparsity(shape) == pytest.approx(64 * block + 0.3 * head, abs=block)


@given(seed=seeds, sparsity=sparsities)
def test_where_no_block_is_small_enough_the_nearest_mask_is_taken(seed: int, sparsity: float) -> None:
    shape = encoder(32, 1, 1, 128)
    block, head = 1 / 12, 1 / 3
    reachable = [heads * head + blocks * block for heads in (0, 1) for blocks in range(9)][:-1]
    achieved = mask_at(distinct_scores(seed, shape), sparsity, shape).sparsity(shape)
    assert abs(achieved - sparsity) == pytest.approx(min(abs(share - sparsity) for share in reachable), abs=1e-9)


@pytest.mark.parametrize("shape", [encoder(384, 6, 12, 1536), encoder(768, 12, 12, 3072)], ids=str)
def test_of_the_usual_encoders_none_is_coarse(shape: Shape) -> None:
    assert not is_coarse(shape)


@given(seed=seeds, sparsity=sparsities)
def test_the_achieved_sparsity_is_the_share_of_weights_that_are_gone(seed: int, sparsity: float) -> None:
    mask = mask_at(distinct_scores(seed), sparsity)
    kept = int(mask.heads_LN.sum()) * SHAPE.head_weights + int(mask.neurons_LF.sum()) * SHAPE.neuron_weights
    assert mask.sparsity(SHAPE) == pytest.approx(1 - kept / SHAPE.prunable_weights, abs=1e-12)


@given(seed=seeds, some=st.lists(sparsities, min_size=2, max_size=6))
def test_more_sparsity_never_keeps_more_weights(seed: int, some: list[float]) -> None:
    scores = distinct_scores(seed)
    achieved = [mask_at(scores, sparsity).sparsity(SHAPE) for sparsity in sorted(some)]
    assert all(less <= more + 1e-12 for less, more in pairwise(achieved))


@given(seed=seeds, sparsity=sparsities, ffn=st.sampled_from([64, 60, 16, 9]))
def test_neurons_are_kept_in_whole_blocks_unless_the_whole_layer_is_kept(seed: int, sparsity: float, ffn: int) -> None:
    shape = replace(SHAPE, ffn=ffn)
    mask = mask_at(distinct_scores(seed, shape), sparsity, shape)
    assert all(count % ROUND_TO == 0 or count == ffn for count in mask.neuron_counts)


@given(seed=seeds, sparsity=sparsities)
def test_permuting_the_units_of_a_layer_permutes_the_mask(seed: int, sparsity: float) -> None:
    scores = distinct_scores(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    heads = torch.randperm(SHAPE.num_heads, generator=generator)
    neurons = torch.randperm(SHAPE.ffn, generator=generator)
    mask = mask_at(scores, sparsity)
    permuted = mask_at(Scores(scores.heads_LN[:, heads], scores.neurons_LF[:, neurons]), sparsity)
    assert torch.equal(permuted.heads_LN, mask.heads_LN[:, heads])
    assert torch.equal(permuted.neurons_LF, mask.neurons_LF[:, neurons])


@given(seed=seeds, sparsity=sparsities)
def test_within_a_layer_no_neuron_that_goes_scores_above_one_that_stays(seed: int, sparsity: float) -> None:
    scores = distinct_scores(seed)
    mask = mask_at(scores, sparsity)
    for layer in range(SHAPE.num_layers):
        kept, gone = (scores.neurons_LF[layer][mask.neurons_LF[layer] == side] for side in (True, False))
        assert not (kept.numel() and gone.numel()) or kept.min() > gone.max()


@given(sparsity=sparsities)
def test_of_equal_neurons_of_a_layer_the_lower_indices_are_kept(sparsity: float) -> None:
    mask = mask_at(Scores(distinct_scores(0).heads_LN, torch.ones(3, 64)), sparsity)
    for layer, count in enumerate(mask.neuron_counts):
        assert mask.kept_neurons(layer).tolist() == list(range(count))


@given(sparsity=sparsities)
def test_of_equal_heads_of_a_layer_the_lower_indices_are_kept(sparsity: float) -> None:
    mask = mask_at(Scores(torch.ones(3, 4), distinct_scores(0).neurons_LF), sparsity)
    for layer, count in enumerate(mask.head_counts):
        assert mask.kept_heads(layer).tolist() == list(range(count))


@given(seed=seeds, sparsity=sparsities)
def test_the_same_scores_give_the_same_mask(seed: int, sparsity: float) -> None:
    one, two = mask_at(distinct_scores(seed), sparsity), mask_at(distinct_scores(seed), sparsity)
    assert torch.equal(one.heads_LN, two.heads_LN)
    assert torch.equal(one.neurons_LF, two.neurons_LF)


@given(seed=seeds, some=st.lists(sparsities, min_size=2, max_size=2))
def test_a_sparser_mask_keeps_nothing_that_a_denser_one_removed(seed: int, some: list[float]) -> None:
    scores = distinct_scores(seed)
    denser, sparser = (mask_at(scores, sparsity) for sparsity in sorted(some))
    assert not (sparser.heads_LN & ~denser.heads_LN).any()
    assert not (sparser.neurons_LF & ~denser.neurons_LF).any()


def test_a_sublayer_whose_last_head_is_dear_keeps_it() -> None:
    cheap, dear = ((0.0, 1.0, 2.0, 3.0, 4.0), (0.0, 1.0, 2.0, 3.0, 400.0))
    neurons = tuple(1e6 * count for count in range(5))
    curves = [
        CostCurve(layer=layer, kind=kind, order=torch.arange(size), step=step, costs=costs)
        for layer, heads in enumerate((cheap, dear, cheap))
        for kind, size, step, costs in ((Kind.HEAD, 4, 1, heads), (Kind.NEURON, 64, ROUND_TO, neurons))
    ]
    mask = structure_mask(curves, SHAPE, 11 * SHAPE.head_weights / SHAPE.prunable_weights)
    assert mask.head_counts == [0, 1, 0]


def test_worthless_heads_go_before_worthwhile_neurons() -> None:
    mask = mask_at(Scores(torch.full((3, 4), 1e-9), torch.ones(3, 64)), 0.25)
    assert sum(mask.head_counts) < sum(mask.neuron_counts) / ROUND_TO


def test_worthless_neurons_go_before_worthwhile_heads() -> None:
    mask = mask_at(Scores(torch.ones(3, 4), torch.full((3, 64), 1e-9)), 0.25)
    assert sum(mask.head_counts) > sum(mask.neuron_counts) / ROUND_TO


def test_a_sparsity_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match=r"sparsity 0\.9999 leaves no head"):
        mask_at(distinct_scores(0), 0.9999)


def test_kept_units_are_listed_in_ascending_order() -> None:
    mask = mask_at(distinct_scores(5), 0.5)
    for layer in range(SHAPE.num_layers):
        assert mask.kept_neurons(layer).tolist() == sorted(mask.kept_neurons(layer).tolist())
        assert mask.kept_heads(layer).tolist() == sorted(mask.kept_heads(layer).tolist())


@given(seed=seeds, sparsity=sparsities)
def test_of_a_bert_base_every_cut_is_within_a_hundredth_of_the_request(seed: int, sparsity: float) -> None:
    shape = Shape(
        hidden=768,
        num_layers=2,
        num_heads=12,
        head_dim=64,
        ffn=3072,
        vocabulary=1,
        positions=1,
        token_types=1,
        labels=2,
    )
    assert abs(mask_at(distinct_scores(seed, shape), sparsity, shape).sparsity(shape) - sparsity) <= 0.01
