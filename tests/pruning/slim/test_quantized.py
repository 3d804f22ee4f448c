import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn import functional

from pruning.errors import PrecisionError
from pruning.quantization import Range, quantized_matrix
from pruning.slim import quantized
from pruning.slim.quantized import QuantizedLinear, multiplies_integers, require_integers

needs_integers = pytest.mark.skipif(not multiplies_integers(), reason="this processor multiplies no 8-bit integers")


def tensors_of(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, smooth: bool = True
) -> dict[str, torch.Tensor]:
    seen = Range(torch.zeros(inputs.shape[1]), torch.zeros(inputs.shape[1]))
    seen.include(inputs)
    return quantized_matrix(weight, seen, smooth=smooth) | {"bias": bias}


def layer_of(
    inputs: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    smooth: bool = True,
    feeds: QuantizedLinear | None = None,
) -> QuantizedLinear:
    layer = QuantizedLinear(weight.shape[1], weight.shape[0], feeds)
    layer.load_state_dict(tensors_of(inputs, weight, bias, smooth=smooth), assign=True)
    return layer.eval()


def numbers(rows: int = 40, inputs: int = 32, outputs: int = 24) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    spread = torch.rand(inputs) * 4  # columns of different ranges
    return (
        torch.randn(rows, inputs) * spread,
        torch.randn(outputs, inputs) * inputs**-0.5,
        torch.randn(outputs),
    )


@needs_integers
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("activation", [None, "gelu", "gelu_new", "relu"])
def test_integers_give_nearly_what_reals_give(smooth: bool, activation: str | None) -> None:
    inputs, weight, bias = numbers()
    layer = layer_of(inputs, weight, bias, smooth=smooth)
    exact = functional.linear(inputs, weight, bias)
    if activation is not None:
        exact = functional.relu(exact) if activation == "relu" else functional.gelu(exact)
    error = (layer(inputs, activation=activation) - exact).abs()
    assert error.mean() < 0.02 * exact.abs().mean()


@needs_integers
def test_a_residual_is_added_and_kept() -> None:
    inputs, weight, bias = numbers()
    layer = layer_of(inputs, weight, bias)
    residual = torch.randn(40, 24)
    before = residual.clone()
    torch.testing.assert_close(layer(inputs, residual=residual), layer(inputs) + residual, atol=1e-5, rtol=1e-5)
    assert torch.equal(residual, before)


@needs_integers
def test_a_range_of_outputs_is_that_range_of_all_of_them() -> None:
    inputs, weight, bias = numbers()
    layer = layer_of(inputs, weight, bias)
    whole = layer(inputs)
    torch.testing.assert_close(layer(inputs, stop=8), whole[:, :8])
    torch.testing.assert_close(layer(inputs, start=8), whole[:, 8:])


@needs_integers
def test_rows_do_not_change_each_other() -> None:
    inputs, weight, bias = numbers()
    layer = layer_of(inputs, weight, bias)
    torch.testing.assert_close(layer(inputs)[3:4], layer(inputs[3:4]))


@needs_integers
def test_what_one_layer_feeds_another_takes() -> None:
    inputs, weight, bias = numbers()
    middle = functional.gelu(functional.linear(inputs, weight, bias))
    last_weight, last_bias = torch.randn(16, 24) * 24**-0.5, torch.randn(16)
    last = layer_of(middle, last_weight, last_bias, smooth=False)
    first = layer_of(inputs, weight, bias, feeds=last)
    exact = functional.linear(middle, last_weight, last_bias)
    steps = first(inputs, activation="gelu")
    assert steps.dtype == torch.uint8
    assert (last(steps) - exact).abs().mean() < 0.03 * exact.abs().mean()


@needs_integers
def test_inputs_beyond_the_range_are_cut_off_at_its_ends() -> None:
    inputs, weight, bias = numbers()
    layer = layer_of(inputs, weight, bias)
    far, farther = layer(inputs.sign() * 1e3), layer(inputs.sign() * 1e6)
    torch.testing.assert_close(far, farther)


@needs_integers
def test_a_copy_lays_out_its_own_weights() -> None:
    inputs, weight, bias = numbers()
    layer = layer_of(inputs, weight, bias)
    before = layer(inputs)
    torch.testing.assert_close(copy.deepcopy(layer)(inputs), before)


@needs_integers
def test_tensors_that_are_loaded_after_a_use_are_those_used() -> None:
    inputs, weight, bias = numbers()
    layer = layer_of(inputs, weight, bias)
    layer(inputs)
    layer.load_state_dict(tensors_of(5 * inputs, -weight, bias))
    torch.testing.assert_close(layer(inputs), layer_of(5 * inputs, -weight, bias)(inputs))


def test_an_int8_layer_is_not_converted() -> None:
    with pytest.raises(PrecisionError, match="an int8 layer stays one"):
        layer_of(*numbers()).to(torch.bfloat16)


@needs_integers
@pytest.mark.parametrize("smooth", [False, True])
def test_a_column_that_was_zero_in_calibration_counts_when_it_no_longer_is(smooth: bool) -> None:
    inputs, weight, bias = numbers()
    inputs[:, 3] = 0.0
    layer = layer_of(inputs, weight, bias, smooth=smooth)
    inputs[:, 3] = 1.0
    exact = functional.linear(inputs, weight, bias)
    assert (layer(inputs) - exact).abs().mean() < 0.3 * weight[:, 3].abs().mean()


@pytest.mark.parametrize("sizes", [(0, 4), (4, 0)])
def test_a_matrix_with_nothing_left_has_finite_scales(sizes: tuple[int, int]) -> None:
    seen = Range(torch.zeros(sizes[1]), torch.zeros(sizes[1]))
    parts = quantized_matrix(torch.zeros(sizes), seen, smooth=True)
    assert parts["weight"].shape == sizes
    assert all(torch.isfinite(part.float()).all() for part in parts.values())


def test_a_machine_without_integer_products_is_refused_with_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized, "multiplies_integers", lambda: False)
    with pytest.raises(PrecisionError, match=r"VNNI.*use 'float32' or 'bfloat16' here"):
        require_integers()


@needs_integers
def test_threads_that_meet_at_the_first_use_get_what_one_alone_gets() -> None:
    inputs, weight, bias = numbers()
    expected = layer_of(inputs, weight, bias)(inputs)
    layer, together = layer_of(inputs, weight, bias), threading.Barrier(4)

    def compute(_: int) -> torch.Tensor:
        together.wait()
        outputs: torch.Tensor = layer(inputs)
        return outputs

    with ThreadPoolExecutor(4) as threads:
        for outputs in threads.map(compute, range(4)):
            torch.testing.assert_close(outputs, expected)
