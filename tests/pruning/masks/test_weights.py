from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pruning.masks.weights import mask_sparsity, unstructured_mask

SIZES = {"first": (3, 4), "second": (5,), "third": (2, 2)}
TOTAL = 21

sparsities = st.floats(min_value=0.0, max_value=1.0, exclude_max=True)
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
