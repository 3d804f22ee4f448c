import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pruning.compensation import compensated, solved_rows
from pruning.reconstruction import damping
from tests.pruning.test_reconstruction import OUTPUTS, WIDTH, problem, seeds, surgeon

masks = st.lists(st.sets(st.integers(0, WIDTH - 1)), min_size=OUTPUTS, max_size=OUTPUTS)


def mask_of_rows(kept: list[set[int]]) -> Tensor:
    mask_OI = torch.zeros(OUTPUTS, WIDTH, dtype=torch.bool)
    for row, places in zip(mask_OI, kept, strict=True):
        row[list(places)] = True
    return mask_OI


def error(weight_OI: Tensor, other_OI: Tensor, inputs_TI: Tensor) -> Tensor:
    """Return each output's squared distance over all tokens."""
    return (inputs_TI @ (weight_OI - other_OI).T).square().sum(0)


@given(seed=seeds, kept=masks)
def test_without_ridge_every_row_is_the_regression_of_its_output_on_the_inputs_that_it_kept(
    seed: int, kept: list[set[int]]
) -> None:
    weight, inputs = problem(seed)
    solved = compensated(weight, inputs.T @ inputs, mask_of_rows(kept), ridge=0.0)
    for row, places in enumerate(kept):
        expected = torch.zeros(WIDTH, dtype=torch.float64)
        if chosen := sorted(places):
            expected[chosen] = torch.linalg.lstsq(inputs[:, chosen], inputs @ weight[row]).solution
        torch.testing.assert_close(solved[row], expected, atol=1e-6, rtol=1e-6)


@given(seed=seeds, kept=masks)
def test_it_is_what_optimal_brain_surgeon_leaves_of_each_row(seed: int, kept: list[set[int]]) -> None:
    weight, inputs = problem(seed)
    gram = inputs.T @ inputs
    damped = gram + damping(gram) * torch.eye(WIDTH, dtype=torch.float64)
    solved = compensated(weight, gram, mask_of_rows(kept))
    for row, places in enumerate(kept):
        expected = surgeon(weight[row : row + 1], damped, sorted(set(range(WIDTH)) - places))
        torch.testing.assert_close(solved[row : row + 1], expected, atol=1e-6, rtol=1e-6)


@given(seed=seeds, kept=masks, tokens=st.integers(min_value=1, max_value=40))
def test_no_outputs_error_is_above_that_of_the_mask_alone(seed: int, kept: list[set[int]], tokens: int) -> None:
    weight, inputs = problem(seed, tokens=tokens)
    mask = mask_of_rows(kept)
    solved = compensated(weight, inputs.T @ inputs, mask)
    assert (error(weight, solved, inputs) <= error(weight, weight * mask, inputs) * (1 + 1e-9) + 1e-12).all()


@given(seed=seeds, kept=masks)
def test_what_went_stays_zero(seed: int, kept: list[set[int]]) -> None:
    weight, inputs = problem(seed)
    mask = mask_of_rows(kept)
    assert not compensated(weight, inputs.T @ inputs, mask)[~mask].any()


def test_inputs_that_were_never_active_leave_the_cut_as_it_is() -> None:
    weight, inputs = problem(0)
    mask = mask_of_rows([{0, 1, 2}] * OUTPUTS)
    assert torch.equal(compensated(weight, torch.zeros(WIDTH, WIDTH, dtype=torch.float64), mask), weight * mask)
    inputs[:, 2] = 0.0
    solved = compensated(weight, inputs.T @ inputs, mask)
    torch.testing.assert_close(solved[:, 2], weight[:, 2], atol=1e-9, rtol=0)


def test_nothing_cut_gives_the_weights_back() -> None:
    weight, inputs = problem(0)
    whole = torch.ones(OUTPUTS, WIDTH, dtype=torch.bool)
    torch.testing.assert_close(compensated(weight, inputs.T @ inputs, whole), weight, atol=1e-9, rtol=0)


def test_solving_changes_neither_the_weight_nor_the_gram() -> None:
    weight, inputs = problem(0)
    gram = inputs.T @ inputs
    before = weight.clone(), gram.clone()
    compensated(weight, gram, mask_of_rows([{0, 1, 2}] * OUTPUTS))
    assert torch.equal(weight, before[0]) and torch.equal(gram, before[1])


@pytest.mark.parametrize("kept", [[], [3], [0, 3]])
def test_a_row_is_solved_over_its_own_inputs_alone(kept: list[int]) -> None:
    gram = torch.tensor([[2.0, 1, 1, 1], [1, 3, 1, 1], [1, 1, 4, 1], [1, 1, 1, 5]], dtype=torch.float64)
    target, mask = torch.arange(1.0, 5, dtype=torch.float64)[None], torch.zeros(1, 4, dtype=torch.bool)
    mask[0, kept] = True
    solved = solved_rows(gram, target, mask)
    torch.testing.assert_close((gram @ solved[0])[kept], target[0, kept])
    assert not solved[~mask].any()
