from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pruning.errors import SpecError
from pruning.masks.weights import mask_sparsity, two_four_mask, unstructured_mask
from pruning.spec import SCOPES, Pattern, Scope

SIZES = {"first": (3, 4), "second": (5,), "third": (2, 2)}
TOTAL = 21

sparsities = st.floats(min_value=0.0, max_value=1.0, exclude_max=True)
scopes = st.sampled_from(SCOPES[Pattern.UNSTRUCTURED])
seeds = st.integers(min_value=0, max_value=2**32)
# Few values, so that ties are common.
coarse_scores = st.lists(st.integers(min_value=0, max_value=3), min_size=TOTAL, max_size=TOTAL)


def scores_of(values: list[int] | Tensor) -> dict[str, Tensor]:
    flat = torch.as_tensor(values, dtype=torch.float32)
    parts = flat.split([torch.Size(size).numel() for size in SIZES.values()])
    return {name: part.view(size) for (name, size), part in zip(SIZES.items(), parts, strict=True)}


def distinct_values(seed: int) -> Tensor:
    return torch.randperm(TOTAL, generator=torch.Generator().manual_seed(seed)).float()


def flat(parts: dict[str, Tensor]) -> Tensor:
    return torch.cat([parts[name].flatten() for name in SIZES])


@given(values=coarse_scores, sparsity=sparsities)
def test_exactly_the_requested_number_of_weights_is_kept(values: list[int], sparsity: float) -> None:
    assert int(flat(unstructured_mask(scores_of(values), sparsity)).sum()) == round((1 - sparsity) * TOTAL)


@given(values=coarse_scores, sparsity=sparsities)
def test_the_achieved_sparsity_is_within_half_a_weight_of_the_request(values: list[int], sparsity: float) -> None:
    achieved = mask_sparsity(unstructured_mask(scores_of(values), sparsity))
    assert abs(achieved - sparsity) <= 0.5 / TOTAL + 1e-9


@given(values=coarse_scores, sparsity=sparsities)
def test_the_best_weights_are_kept_and_of_equal_ones_the_lower_index(values: list[int], sparsity: float) -> None:
    kept = round((1 - sparsity) * TOTAL)
    best = sorted(range(TOTAL), key=lambda index: (-values[index], index))[:kept]
    assert flat(unstructured_mask(scores_of(values), sparsity)).nonzero().flatten().tolist() == sorted(best)


@given(values=coarse_scores, some=st.lists(sparsities, min_size=2, max_size=5))
def test_a_sparser_mask_is_a_part_of_the_denser_one(values: list[int], some: list[float]) -> None:
    masks = [flat(unstructured_mask(scores_of(values), sparsity)) for sparsity in sorted(some)]
    assert all((sparser <= denser).all() for denser, sparser in pairwise(masks))


@given(seed=seeds, sparsity=sparsities)
def test_permuting_the_weights_permutes_the_mask(seed: int, sparsity: float) -> None:
    values = distinct_values(seed)
    order = torch.randperm(TOTAL, generator=torch.Generator().manual_seed(seed + 1))
    mask = flat(unstructured_mask(scores_of(values), sparsity))
    assert torch.equal(flat(unstructured_mask(scores_of(values[order]), sparsity)), mask[order])


@given(values=coarse_scores, sparsity=sparsities)
def test_every_mask_has_the_shape_of_its_tensor(values: list[int], sparsity: float) -> None:
    mask = unstructured_mask(scores_of(values), sparsity)
    assert {name: tuple(part.shape) for name, part in mask.items()} == SIZES
    assert {part.dtype for part in mask.values()} == {torch.bool}


@pytest.mark.parametrize(("sparsity", "kept"), [(0.0, TOTAL), (0.999, 0)])
def test_the_ends_keep_everything_and_nothing(sparsity: float, kept: int) -> None:
    assert int(flat(unstructured_mask(scores_of([1] * TOTAL), sparsity)).sum()) == kept


def test_tensors_compete_with_each_other() -> None:
    scores = {"weak": torch.tensor([1.0, 2.0]), "strong": torch.tensor([3.0, 4.0])}
    mask = unstructured_mask(scores, 0.5)
    assert not mask["weak"].any()
    assert mask["strong"].all()


def test_by_layer_every_tensor_keeps_its_own_share() -> None:
    scores = {"weak": torch.tensor([1.0, 2.0, 0.0, 0.0]), "strong": torch.tensor([3.0, 4.0])}
    mask = unstructured_mask(scores, 0.5, Scope.LAYERWISE)
    assert mask["weak"].tolist() == [True, True, False, False]
    assert mask["strong"].tolist() == [False, True]


def test_by_row_every_output_keeps_its_own_share() -> None:
    scores = {"one": torch.tensor([[1.0, 2.0, 3.0, 4.0], [90.0, 80.0, 70.0, 60.0]])}
    mask = unstructured_mask(scores, 0.75, Scope.ROW)["one"]
    assert mask.tolist() == [[False, False, False, True], [True, False, False, False]]


matrices = st.tuples(st.integers(1, 5), st.integers(1, 9)).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(0, 3), min_size=size[1], max_size=size[1]), min_size=size[0], max_size=size[0]
    )
)


@given(rows=matrices, sparsity=sparsities, scope=scopes)
def test_every_scope_keeps_exactly_its_share_the_best_and_of_equal_ones_the_lower(
    rows: list[list[int]], sparsity: float, scope: Scope
) -> None:
    scores = {"one": torch.tensor(rows, dtype=torch.float32), "two": torch.tensor(rows[::-1], dtype=torch.float32)}
    mask = unstructured_mask(scores, sparsity, scope)
    if scope is Scope.ROW:
        groups = [(s, m) for name in scores for s, m in zip(scores[name], mask[name], strict=True)]
    elif scope is Scope.LAYERWISE:
        groups = [(scores[name].flatten(), mask[name].flatten()) for name in scores]
    else:
        groups = [(torch.cat([s.flatten() for s in scores.values()]), torch.cat([m.flatten() for m in mask.values()]))]
    for values, kept in groups:
        best = sorted(range(len(values)), key=lambda index: (-float(values[index]), index))
        assert kept.nonzero().flatten().tolist() == sorted(best[: round((1 - sparsity) * len(values))])


@given(
    rows=matrices,
    some=st.lists(sparsities, min_size=2, max_size=4),
    scope=scopes,
)
def test_in_every_scope_a_sparser_mask_is_a_part_of_the_denser_one(
    rows: list[list[int]], some: list[float], scope: Scope
) -> None:
    scores = {"one": torch.tensor(rows, dtype=torch.float32)}
    masks = [unstructured_mask(scores, sparsity, scope)["one"] for sparsity in sorted(some)]
    assert all((sparser <= denser).all() for denser, sparser in pairwise(masks))


@given(
    values=st.lists(st.integers(0, 2), min_size=24, max_size=24),
    shape=st.sampled_from([(6, 4), (3, 8), (2, 12), (1, 24)]),
)
def test_two_of_every_four_consecutive_inputs_are_kept_the_better_ones(
    values: list[int], shape: tuple[int, int]
) -> None:
    scores = torch.tensor(values, dtype=torch.float32).view(shape)
    mask = two_four_mask({"one": scores})["one"]
    assert mask.shape == scores.shape
    assert mask_sparsity({"one": mask}) == 0.5
    for group, kept in zip(scores.view(-1, 4).tolist(), mask.view(-1, 4).tolist(), strict=True):
        best = sorted(range(4), key=lambda index: (-group[index], index))[:2]
        assert [index for index in range(4) if kept[index]] == sorted(best)


def test_inputs_that_make_no_groups_of_four_are_refused_by_name() -> None:
    with pytest.raises(SpecError, match=r"layers\.0\.odd has 6: use pattern='unstructured'"):
        two_four_mask({"layers.0.even": torch.ones(2, 8), "layers.0.odd": torch.ones(2, 6)})
