import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.comparison.kept import SAMPLE, Part, Sublayer, jaccard, kept_by, kept_share, of_layer
from pruning.cost import HeadDims, Shape
from tests.pruning.parts import mask_of, with_units

SHAPE = Shape(
    hidden=8, num_layers=2, num_heads=2, head_dim=4, ffn=4, vocabulary=5, positions=6, token_types=2, labels=2
)
HEAD, NEURON = 128, 16
"""Weights of one head and of one neuron of ``SHAPE``."""

masks = st.builds(
    lambda heads, neurons: kept_by(mask_of(SHAPE, heads, neurons), SHAPE),
    st.lists(st.sets(st.integers(0, 1)), min_size=2, max_size=2),
    st.lists(st.sets(st.integers(0, 3)), min_size=2, max_size=2),
)


def test_an_overlap_by_hand() -> None:
    ours = kept_by(mask_of(SHAPE, [{0, 1}, {0}], [{0, 1, 2}, set()]), SHAPE)
    theirs = kept_by(mask_of(SHAPE, [{0}, {1}], [{2, 3}, {0}]), SHAPE)
    both, either = HEAD + NEURON, 4 * HEAD + 5 * NEURON
    assert jaccard(ours, theirs) == pytest.approx(both / either)
    assert jaccard(of_layer(ours, 0), of_layer(theirs, 0)) == pytest.approx(both / (2 * HEAD + 4 * NEURON))
    assert jaccard(of_layer(ours, 1), of_layer(theirs, 1)) == 0.0


def test_units_inside_heads_count_with_the_weights_that_they_own() -> None:
    heads = mask_of(SHAPE, [{0, 1}, {0}], [set(), set()])
    mask = with_units(heads, SHAPE, [HeadDims(1, 2), HeadDims(4, 3)])
    kept = kept_by(mask, SHAPE)
    attention = [(part.layer, part.kept, part.size) for part in kept if part.sublayer is Sublayer.ATTENTION]
    assert attention == [(0, 2, 8), (0, 4, 8), (1, 4, 8), (1, 3, 8)]
    assert sum(part.weights for part in kept) == SHAPE.prunable_weights
    assert kept_share(kept, 0, Sublayer.ATTENTION) == pytest.approx((2 + 4) / 16)
    assert jaccard(kept, kept) == 1.0
    shares = [kept_share(kept, layer, Sublayer.ATTENTION) for layer in (0, 1)]
    assert 1 - mask.sparsity(SHAPE) == pytest.approx(sum(shares) * 2 * HEAD / SHAPE.prunable_weights)


@given(masks)
def test_a_mask_overlaps_with_itself_in_full_even_where_it_keeps_nothing(kept: tuple[Part, ...]) -> None:
    assert jaccard(kept, kept) == 1.0
    assert all(jaccard(of_layer(kept, layer), of_layer(kept, layer)) == 1.0 for layer in range(2))


@given(masks, masks)
def test_overlap_is_symmetric_and_a_share(ours: tuple[Part, ...], theirs: tuple[Part, ...]) -> None:
    assert jaccard(ours, theirs) == jaccard(theirs, ours)
    assert 0.0 <= jaccard(ours, theirs) <= 1.0


@given(masks)
def test_parts_come_back_from_json_as_they_were(kept: tuple[Part, ...]) -> None:
    plain = json.loads(json.dumps([part.as_dict() for part in kept]))
    again = [Part.from_dict(part) for part in plain]
    assert [part.as_dict() for part in again] == plain
    assert jaccard(again, kept) == 1.0


def test_small_matrices_are_compared_weight_by_weight() -> None:
    ours = {"layers.0.query.weight": torch.tensor([[True, True], [False, False]])}
    theirs = {"layers.0.query.weight": torch.tensor([[True, False], [True, False]])}
    assert jaccard(kept_by(ours, SHAPE), kept_by(theirs, SHAPE)) == pytest.approx(1 / 3)


def test_matrices_count_by_their_size_however_few_of_their_weights_are_looked_at() -> None:
    large, small = torch.ones(SAMPLE * 3, 1, dtype=torch.bool), torch.ones(SAMPLE, 1, dtype=torch.bool)
    ours = {"layers.0.ffn_in.weight": large, "layers.0.query.weight": small}
    theirs = {"layers.0.ffn_in.weight": large, "layers.0.query.weight": ~small}
    assert jaccard(kept_by(ours, SHAPE), kept_by(theirs, SHAPE)) == pytest.approx(0.75)


def test_the_overlap_of_large_matrices_is_estimated_closely() -> None:
    generator = torch.Generator().manual_seed(1)
    ours, theirs = (torch.rand(300, 300, generator=generator) < 0.5 for _ in range(2))
    exact = float((ours & theirs).sum() / (ours | theirs).sum())
    estimated = jaccard(*(kept_by({"layers.0.query.weight": mask}, SHAPE) for mask in (ours, theirs)))
    assert estimated == pytest.approx(exact, abs=0.03)


def test_the_same_weights_of_large_matrices_are_looked_at_every_time() -> None:
    mask = torch.rand(300, 300, generator=torch.Generator().manual_seed(1)) < 0.5
    assert jaccard(*(kept_by({"layers.0.query.weight": mask}, SHAPE) for _ in range(2))) == 1.0


def test_kept_shares_are_exact_and_told_by_sublayer() -> None:
    kept = kept_by(mask_of(SHAPE, [{0, 1}, {0}], [{0, 1, 2}, set()]), SHAPE)
    shares = {sublayer: [kept_share(kept, layer, sublayer) for layer in range(2)] for sublayer in Sublayer}
    assert shares == {Sublayer.ATTENTION: [1.0, 0.5], Sublayer.FFN: [0.75, 0.0]}
    weights = {f"layers.0.{slot}.weight": torch.zeros(90, 60, dtype=torch.bool) for slot in ("query", "ffn_in")}
    weights["layers.0.query.weight"][0] = True
    parts = kept_by(weights, SHAPE)
    assert [kept_share(parts, 0, sublayer) for sublayer in Sublayer] == [pytest.approx(1 / 90), 0.0]


def test_masks_of_different_encoders_are_not_compared() -> None:
    ours = kept_by({"layers.0.query.weight": torch.ones(2, 2, dtype=torch.bool)}, SHAPE)
    theirs = kept_by({"layers.0.query.weight": torch.ones(2, 3, dtype=torch.bool)}, SHAPE)
    with pytest.raises(ValueError, match="parts of different encoders"):
        jaccard(ours, theirs)
