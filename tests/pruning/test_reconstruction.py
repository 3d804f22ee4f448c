from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pruning.encoder import BaseModel
from pruning.errors import DataError
from pruning.reconstruction import RIDGE, damping, least_squares, output_error, reconstruct, require_tokens
from pruning.slim.bert import Site
from pruning.slim.convert import dense_mask
from pruning.workbench import Workbench
from tests.pruning.parts import mask_of, random_calibration

WIDTH, OUTPUTS = 8, 5

kept_sets = st.sets(st.integers(0, WIDTH - 1), min_size=1, max_size=WIDTH - 1).map(sorted)
seeds = st.integers(min_value=0, max_value=2**32)


def problem(seed: int, *, tokens: int = 40) -> tuple[Tensor, Tensor]:
    """Return (weight [D, W], inputs [T, W]) in float64; neighbouring inputs are correlated."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(OUTPUTS, WIDTH, generator=generator, dtype=torch.float64)
    inputs = torch.randn(tokens, WIDTH, generator=generator, dtype=torch.float64)
    return weight, inputs + 0.7 * inputs.roll(1, dims=1)


def surgeon(weight_DW: Tensor, hessian_WW: Tensor, removed: Sequence[int]) -> Tensor:
    """Remove inputs one by one, moving the others as Optimal Brain Surgeon does (Hassibi and Stork, 1993)."""
    weight, inverse = weight_DW.clone(), torch.linalg.inv(hessian_WW)
    for place in removed:
        column, pivot = inverse[:, place].clone(), inverse[place, place].clone()
        weight -= torch.outer(weight[:, place] / pivot, column)
        inverse -= torch.outer(column, column) / pivot
    return weight


@given(seed=seeds, kept=kept_sets, order_seed=seeds)
def test_least_squares_is_what_optimal_brain_surgeon_leaves_in_any_order(
    seed: int, kept: list[int], order_seed: int
) -> None:
    weight, inputs = problem(seed)
    gram = inputs.T @ inputs
    ridge = 1e-6
    removed = [place for place in range(WIDTH) if place not in kept]
    order = torch.randperm(len(removed), generator=torch.Generator().manual_seed(order_seed)).tolist()
    damped = gram + ridge * gram.diagonal().mean() * torch.eye(WIDTH, dtype=torch.float64)
    expected = surgeon(weight, damped, [removed[index] for index in order])[:, kept]
    torch.testing.assert_close(
        least_squares(weight, gram, torch.tensor(kept), ridge=ridge), expected, atol=1e-6, rtol=1e-6
    )


@given(seed=seeds, kept=kept_sets)
def test_without_ridge_it_is_the_regression_of_the_dense_output_on_the_kept_inputs(seed: int, kept: list[int]) -> None:
    weight, inputs = problem(seed)
    expected = torch.linalg.lstsq(inputs[:, kept], inputs @ weight.T).solution.T
    torch.testing.assert_close(
        least_squares(weight, inputs.T @ inputs, torch.tensor(kept), ridge=0.0), expected, atol=1e-6, rtol=1e-6
    )


@given(seed=seeds, kept=kept_sets, tokens=st.integers(min_value=1, max_value=40))
def test_the_ridge_solution_is_never_worse_than_the_cut(seed: int, kept: list[int], tokens: int) -> None:
    weight, inputs = problem(seed, tokens=tokens)
    gram, places = inputs.T @ inputs, torch.tensor(kept)
    cut = output_error(weight, weight[:, kept], gram, places)
    solved = output_error(weight, least_squares(weight, gram, places), gram, places)
    assert solved <= cut * (1 + 1e-9)


@given(seed=seeds, kept=kept_sets)
def test_the_output_error_is_the_squared_distance_of_the_outputs(seed: int, kept: list[int]) -> None:
    weight, inputs = problem(seed)
    cut = weight[:, kept] * 1.1
    distance = (inputs @ weight.T - inputs[:, kept] @ cut.T).square().sum()
    torch.testing.assert_close(
        output_error(weight, cut, inputs.T @ inputs, torch.tensor(kept)), distance, rtol=1e-9, atol=1e-9
    )


def test_inputs_that_were_copies_of_kept_ones_are_recovered_entirely() -> None:
    weight, inputs = problem(0)
    inputs[:, 4:] = inputs[:, :4]
    kept = torch.arange(4)
    solved = least_squares(weight, inputs.T @ inputs, kept, ridge=1e-9)
    torch.testing.assert_close(solved, weight[:, :4] + weight[:, 4:], atol=1e-6, rtol=0)


def test_independent_inputs_leave_nothing_to_recover() -> None:
    weight, _ = problem(0)
    gram, kept = torch.eye(WIDTH, dtype=torch.float64), torch.tensor([0, 3, 5])
    torch.testing.assert_close(least_squares(weight, gram, kept), weight[:, kept], atol=1e-12, rtol=0)


def test_inputs_that_were_never_active_leave_the_cut_as_it_is() -> None:
    weight, _ = problem(0)
    gram, kept = torch.zeros(WIDTH, WIDTH, dtype=torch.float64), torch.tensor([0, 3, 5])
    assert torch.equal(least_squares(weight, gram, kept), weight[:, kept])


def test_as_many_tokens_as_inputs_are_enough_and_fewer_are_not() -> None:
    require_tokens(64, 64)
    with pytest.raises(DataError, match=r"63 calibration tokens .* 64 inputs.* rows of at least 64 tokens"):
        require_tokens(63, 64)


@given(seed=seeds, tokens=st.integers(min_value=1, max_value=2 * WIDTH))
def test_the_ridge_bounds_the_condition_number_however_few_the_tokens(seed: int, tokens: int) -> None:
    _, inputs = problem(seed, tokens=tokens)
    gram = inputs.T @ inputs
    values = torch.linalg.eigvalsh(gram + damping(gram) * torch.eye(WIDTH, dtype=torch.float64))
    assert values[-1] / values[0] <= WIDTH / RIDGE + 1 + 1e-6


def test_solving_changes_neither_the_weight_nor_the_gram() -> None:
    weight, inputs = problem(0)
    gram = inputs.T @ inputs
    before = weight.clone(), gram.clone()
    least_squares(weight, gram, torch.arange(4))
    assert torch.equal(weight, before[0])
    assert torch.equal(gram, before[1])


@settings(max_examples=20)
@given(
    heads=st.lists(st.sets(st.integers(0, 3)), min_size=2, max_size=2),
    neurons=st.lists(st.sets(st.integers(0, 63)), min_size=2, max_size=2),
)
def test_no_sublayers_output_error_rises(base: BaseModel, heads: list[set[int]], neurons: list[set[int]]) -> None:
    calibration = random_calibration(base)
    mask = mask_of(base.shape, heads, neurons)
    for (layer, slot), weight_DK in reconstruct(base, calibration, mask).items():
        site = Site.ATTENTION if slot == "attention_output" else Site.FFN
        dims = torch.tensor(sorted(heads[layer]), dtype=torch.int64)[:, None] * 8 + torch.arange(8)
        kept = dims.flatten() if site is Site.ATTENTION else mask.kept_neurons(layer)
        weight_DW = base.tensors[f"layers.{layer}.{slot}.weight"].double()
        gram_WW = calibration.grams[layer, site].double()
        cut = output_error(weight_DW, weight_DW[:, kept], gram_WW, kept)
        assert output_error(weight_DW, weight_DK.double(), gram_WW, kept) <= cut * (1 + 1e-6)


def test_real_activations_are_correlated_enough_to_recover_every_cut_sublayer(bench: Workbench) -> None:
    mask = mask_of(bench.base.shape, [[0, 2], [1, 3]], [range(0, 64, 2)] * 2)
    assert set(reconstruct(bench.base, bench.calibration, mask)) == {
        (layer, slot) for layer in (0, 1) for slot in ("attention_output", "ffn_out")
    }


def test_the_dense_mask_leaves_nothing_to_reconstruct(base: BaseModel) -> None:
    assert reconstruct(base, random_calibration(base), dense_mask(base.shape)) == {}


def test_an_empty_sublayer_has_no_weight_to_reconstruct(base: BaseModel) -> None:
    mask = mask_of(base.shape, [[], range(4)], [range(64), []])
    assert reconstruct(base, random_calibration(base), mask) == {}


@pytest.mark.parametrize("site", [Site.ATTENTION, Site.FFN])
def test_a_sublayer_that_was_silent_on_the_calibration_rows_keeps_its_cut_weights(base: BaseModel, site: Site) -> None:
    calibration = random_calibration(base)
    silent = {place: gram * (place != (0, site)) for place, gram in calibration.grams.items()}
    mask = mask_of(base.shape, [[0], range(4)], [range(32), range(64)])
    rebuilt = reconstruct(base, replace(calibration, grams=silent), mask)
    slot, kept = ("attention_output", torch.arange(8)) if site is Site.ATTENTION else ("ffn_out", torch.arange(32))
    assert torch.equal(rebuilt[0, slot], base.tensors[f"layers.0.{slot}.weight"][:, kept])
