import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from pruning.slim.linear import ACTIVATIONS, Linear, blocked_kernels, finish, rounded_rows


def frozen(inputs: int, outputs: int, seed: int = 0) -> Linear:
    torch.manual_seed(seed)
    layer = Linear(inputs, outputs)
    torch.nn.init.normal_(layer.weight, std=inputs**-0.5)
    torch.nn.init.normal_(layer.bias)
    return layer.requires_grad_(False)


@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("sizes", [(8, 8), (33, 16), (16, 5), (128, 384)])
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_laid_out_weights_give_what_the_plain_ones_give(
    rows: int, sizes: tuple[int, int], activation: str | None
) -> None:
    layer = frozen(*sizes)
    inputs = torch.randn(rows, sizes[0])
    plain = functional.linear(inputs, layer.weight, layer.bias)
    expected = finish(plain, activation, None)
    for _ in range(2):  # the first use lays them out, the second finds them so
        torch.testing.assert_close(layer(inputs, activation=activation), expected, atol=1e-5, rtol=1e-5)


def test_a_range_of_outputs_is_that_range_of_all_of_them() -> None:
    layer = frozen(16, 12)
    inputs = torch.randn(5, 16)
    whole = layer(inputs)
    torch.testing.assert_close(layer(inputs, stop=4), whole[:, :4], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer(inputs, start=4), whole[:, 4:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("trains", [False, True])
def test_a_residual_is_added(trains: bool) -> None:
    layer = frozen(16, 12).requires_grad_(trains)
    inputs, residual = torch.randn(5, 16), torch.randn(5, 12)
    before = residual.clone()
    torch.testing.assert_close(layer(inputs, residual=residual), layer(inputs) + residual, atol=1e-5, rtol=1e-5)
    assert torch.equal(residual, before)


def test_a_copy_and_a_conversion_lay_out_their_own_weights() -> None:
    layer = frozen(16, 8)
    inputs = torch.randn(3, 16)
    before = layer(inputs)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.weight.zero_()
    torch.testing.assert_close(twin(inputs), twin.bias.expand(3, 8))
    torch.testing.assert_close(layer(inputs), before)
    low = layer.to(torch.bfloat16)(inputs.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), before, atol=0.05, rtol=0.05)


def test_gradients_pass_through_frozen_weights_and_reach_those_that_train() -> None:
    layer = frozen(16, 8)
    inputs = torch.randn(3, 16, requires_grad=True)
    layer(inputs).sum().backward()
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad, layer.weight.sum(0).expand(3, 16))
    layer.requires_grad_(True)
    layer(inputs.detach()).sum().backward()
    assert layer.weight.grad is not None


def test_weights_that_train_are_used_as_they_are() -> None:
    layer = frozen(16, 8).requires_grad_(True)
    inputs = torch.randn(3, 16)
    layer(inputs)
    with torch.no_grad():
        layer.weight.zero_()
        torch.testing.assert_close(layer(inputs), layer.bias.expand(3, 8))


def test_other_devices_keep_the_ordinary_kernels() -> None:
    assert not blocked_kernels("cuda", torch.float32) and not blocked_kernels("meta", torch.float32)


@given(rows=st.integers(1, 100_000))
def test_rows_are_rounded_up_by_an_eighth_at_most(rows: int) -> None:
    rounded = rounded_rows(rows)
    assert rows <= rounded <= rows + rows / 8
    assert rounded_rows(rounded) == rounded


def test_batches_of_any_size_have_few_numbers_of_rows() -> None:
    assert len({rounded_rows(rows) for rows in range(1, 4097)}) <= 8 * 12


def test_weights_that_are_loaded_after_a_use_are_those_used() -> None:
    layer, other = frozen(16, 8), frozen(16, 8, seed=1)
    inputs = torch.randn(3, 16)
    layer(inputs)
    layer.load_state_dict(other.state_dict())
    torch.testing.assert_close(layer(inputs), other(inputs))
