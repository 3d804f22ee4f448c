from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.errors import SpecError
from pruning.masks.even import even_mask
from pruning.masks.structures import ROUND_TO, TOLERANCE, StructureMask
from tests.pruning.masks.test_structures import SHAPE, curves_of, distinct_scores, seeds, sparsities

SMALL_BERT = replace(SHAPE, hidden=384, num_layers=6, num_heads=12, head_dim=32, ffn=1536)


def cut(sparsity: float, seed: int = 0) -> StructureMask:
    return even_mask(curves_of(distinct_scores(seed, SMALL_BERT)), SMALL_BERT, sparsity)


@given(sparsity=st.floats(min_value=0.0, max_value=0.98))
def test_every_layer_is_as_wide_as_the_others_and_the_budget_is_met(sparsity: float) -> None:
    mask = cut(sparsity)
    assert len(set(mask.head_counts)) == len(set(mask.neuron_counts)) == 1
    assert all(count % ROUND_TO == 0 for count in mask.neuron_counts)
    assert mask.sparsity(SMALL_BERT) == pytest.approx(sparsity, abs=TOLERANCE + 1e-9)


@pytest.mark.parametrize(
    ("sparsity", "heads", "neurons"), [(0.0, 12, 1536), (0.5, 6, 768), (0.75, 3, 384), (0.6, 5, 608)]
)
def test_heads_and_neurons_go_by_like_shares(sparsity: float, heads: int, neurons: int) -> None:
    mask = cut(sparsity)
    assert (mask.head_counts[0], mask.neuron_counts[0]) == (heads, neurons)


@given(seed=seeds, sparsity=sparsities)
def test_the_least_important_structures_of_each_layer_go(seed: int, sparsity: float) -> None:
    scores = distinct_scores(seed)
    mask = even_mask(curves_of(scores), SHAPE, sparsity)
    for kept_LN, scores_LN in ((mask.heads_LN, scores.heads_LN), (mask.neurons_LF, scores.neurons_LF)):
        for kept, importance in zip(kept_LN, scores_LN, strict=True):
            if kept.any() and not kept.all():
                assert importance[kept].min() > importance[~kept].max()


def test_costs_play_no_part() -> None:
    scores = distinct_scores(1)
    dear = curves_of(scores)
    dear[:2] = [replace(curve, costs=tuple(9.0 * cost for cost in curve.costs)) for curve in dear[:2]]
    one, other = (even_mask(curves, SHAPE, 0.5) for curves in (curves_of(scores), dear))
    assert torch.equal(one.heads_LN, other.heads_LN) and torch.equal(one.neurons_LF, other.neurons_LF)


def test_a_sparsity_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match=r"sparsity 0\.9999 leaves no head"):
        cut(0.9999)
