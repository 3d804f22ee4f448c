import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pruning.reconstruction import damping, least_squares, output_error
from pruning.removal import BATCH, removal_order

OUTPUTS = 5
RIDGE = 1e-6

seeds = st.integers(min_value=0, max_value=2**32)
structures = st.sampled_from([(8, 1), (4, 3), (1, 4), (2 * BATCH + 3, 1)])
"""(structures of a sublayer, inputs of each): single inputs in one batch and in several, and blocks."""


def problem(seed: int, width: int) -> tuple[Tensor, Tensor]:
    """Return (weight [D, W], Gram [W, W]) in float64; neighbouring inputs are correlated."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(OUTPUTS, width, generator=generator, dtype=torch.float64)
    inputs = torch.randn(3 * width, width, generator=generator, dtype=torch.float64)
    inputs += 0.7 * inputs.roll(1, dims=1)
    return weight, inputs.T @ inputs


def dims_of(places: Tensor, dims_each: int) -> Tensor:
    return (places.sort().values[:, None] * dims_each + torch.arange(dims_each)).flatten()


def least_squares_objective(weight: Tensor, gram: Tensor, kept: Tensor) -> float:
    """The least squared error with its ridge, by the closed form."""
    solved = least_squares(weight, gram, kept, RIDGE)
    change = weight.clone()
    change[:, kept] -= solved
    return float(output_error(weight, solved, gram, kept) + damping(gram, RIDGE) * change.square().sum())


@given(seed=seeds, sizes=structures)
def test_the_costs_add_up_to_the_least_squares_error_at_every_step(seed: int, sizes: tuple[int, int]) -> None:
    count, dims_each = sizes
    weight, gram = problem(seed, count * dims_each)
    removal = removal_order(weight, gram, dims_each, RIDGE)
    for steps in {1, count // 2, count - 1} - {0, count}:
        kept = dims_of(removal.order[steps:], dims_each)
        expected = least_squares_objective(weight, gram, kept)
        assert float(removal.costs[:steps].sum()) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(seed=seeds, sizes=structures)
def test_each_step_removes_the_structure_that_the_others_replace_best(seed: int, sizes: tuple[int, int]) -> None:
    count, dims_each = sizes
    weight, gram = problem(seed, count * dims_each)
    order = removal_order(weight, gram, dims_each, RIDGE).order.tolist()
    assert sorted(order) == list(range(count))
    for step in {0, count // 2, count - 2} & set(range(count - 1)):
        left = order[step:]
        errors = [
            least_squares_objective(weight, gram, dims_of(torch.tensor([s for s in left if s != one]), dims_each))
            for one in left
        ]
        assert errors[0] <= min(errors) * (1 + 1e-6) + 1e-9


def test_of_two_copies_one_goes_first_and_the_other_last() -> None:
    weight, gram = torch.ones(OUTPUTS, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    gram[0, 1] = gram[1, 0] = 1.0
    removal = removal_order(weight, gram, 1, ridge=1e-9)
    assert removal.order.tolist()[0] == 1
    assert float(removal.costs[0]) == pytest.approx(0.0, abs=1e-6)
    assert removal.order.tolist()[1:] == [2, 0]


def test_structures_that_cost_the_same_go_from_the_highest_index_down() -> None:
    weight, gram = torch.ones(OUTPUTS, 2 * BATCH, dtype=torch.float64), torch.eye(2 * BATCH, dtype=torch.float64)
    assert removal_order(weight, gram, 1).order.tolist() == list(reversed(range(2 * BATCH)))
    assert removal_order(weight, gram, 8).order.tolist() == list(reversed(range(BATCH // 4)))


def test_inputs_that_were_never_active_cost_nothing() -> None:
    weight, gram = torch.ones(OUTPUTS, 8), torch.zeros(8, 8)
    for dims_each in (1, 4):
        removal = removal_order(weight, gram, dims_each)
        assert removal.order.tolist() == list(reversed(range(8 // dims_each)))
        assert not removal.costs.any()


def test_fewer_tokens_than_inputs_give_finite_costs_that_are_not_negative() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 2 * BATCH, generator=generator)
    weight = torch.randn(OUTPUTS, 2 * BATCH, generator=generator)
    costs = removal_order(weight, inputs.T @ inputs, 1).costs
    assert torch.isfinite(costs).all() and (costs >= 0).all()
