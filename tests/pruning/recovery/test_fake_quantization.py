"""What training sees of an int8 variant is what int8 serves."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.errors import SpecError
from pruning.identity import cut_id, identify
from pruning.pipeline import build_variant, cut
from pruning.quantization import Range, input_ranges, quantize, quantized_matrix, with_ranges, without_ranges
from pruning.recovery.distillation import checkpoints_of, recover
from pruning.recovery.fake_quantization import FakeQuantizedLinear
from pruning.recovery.recipe import Recipe
from pruning.recovery.student import Student
from pruning.recovery.training import Progress
from pruning.slim.convert import build_slim, dense_mask, slim_layers
from pruning.slim.linear import Linear
from pruning.slim.quantized import INPUT_TOP, multiplies_integers
from pruning.spec import Precision
from pruning.workbench import Workbench
from tests.pruning.parts import logits_of, sequences_of
from tests.pruning.recovery.conftest import CPU, HALF, SHORT, ZEROS

needs_integers = pytest.mark.skipif(not multiplies_integers(), reason="this processor does not multiply integers")
LENGTHS = (3, 9, 17, 30)
ROUNDED = replace(SHORT, quantized=True)
SERVED = replace(HALF, precision=Precision.INT8)


def a_matrix(outputs: int = 6, inputs: int = 5, *, smooth: bool = True) -> tuple[FakeQuantizedLinear, Range]:
    generator = torch.Generator().manual_seed(0)
    plain = Linear(inputs, outputs)
    with torch.no_grad():
        plain.weight.copy_(torch.randn(outputs, inputs, generator=generator))
        plain.bias.copy_(torch.randn(outputs, generator=generator))
    low, high = -torch.rand(inputs, generator=generator), 2 * torch.rand(inputs, generator=generator)
    return FakeQuantizedLinear(plain, Range(low, high), smooth=smooth), Range(low, high)


@pytest.mark.parametrize("smooth", [True, False])
def test_inputs_and_weights_are_those_that_the_integers_stand_for(smooth: bool) -> None:
    matrix, seen = a_matrix(smooth=smooth)
    inputs = torch.randn(200, 5, generator=torch.Generator().manual_seed(1))
    served = quantized_matrix(matrix.weight.detach(), seen, smooth=smooth)
    integers = torch.addcmul(served["input_zero"] + 0.5, inputs, served["input_factor"]).clamp(0, INPUT_TOP)
    integers = integers.to(torch.uint8).float()
    found, weight = matrix.rounded(inputs)
    torch.testing.assert_close(found * served["input_factor"] + served["input_zero"], integers, rtol=0, atol=1e-4)
    products = (integers - served["input_zero"]) @ served["weight"].float().T
    products = products * served["input_scale"] * served["weight_scale"] + matrix.bias
    torch.testing.assert_close(functional.linear(found, weight, matrix.bias), products, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(matrix(inputs), products, rtol=1e-5, atol=1e-5)


def test_gradients_pass_straight_through_and_stop_beyond_the_range() -> None:
    matrix, seen = a_matrix(smooth=False)
    inside = torch.zeros(3, 5)
    beyond = torch.full((2, 5), 100.0)
    inputs = torch.cat([inside, beyond]).requires_grad_()
    matrix.requires_grad_(True)
    matrix(inputs).sum().backward()
    assert inputs.grad is not None and matrix.weight.grad is not None
    _, weight = matrix.rounded(inputs.detach())
    torch.testing.assert_close(inputs.grad[:3], weight.detach().sum(0).expand(3, 5))
    assert not inputs.grad[3:].any()
    rounded, _ = matrix.rounded(inputs.detach())
    torch.testing.assert_close(matrix.weight.grad, rounded.sum(0).expand(6, 5))
    assert float(seen.high_K.max()) < 100.0


@needs_integers
def test_the_model_in_training_answers_as_the_served_one(base: BaseModel) -> None:
    layers = slim_layers(base, dense_mask(base.shape))
    sequences = sequences_of(LENGTHS, vocabulary=base.shape.vocabulary)
    ranged = with_ranges(layers, input_ranges(base, layers, sequences))
    student = Student(base, ranged, Recipe(steps=1, quantized=True), device=CPU)
    served = build_slim(base, quantize(base, student.layers(), ()))
    exact = logits_of(build_slim(base, layers), sequences)
    found, wanted = logits_of(student.model, sequences), logits_of(served, sequences)
    assert float((found - wanted).abs().max()) < 0.05 * float((exact - wanted).abs().max())


def test_ranges_go_with_the_layers_and_come_off_again(base: BaseModel) -> None:
    layers = slim_layers(base, dense_mask(base.shape))
    ranges = input_ranges(base, layers, sequences_of(LENGTHS, vocabulary=base.shape.vocabulary))
    plain, found = without_ranges(with_ranges(layers, ranges))
    assert plain.keys() == layers.keys() and found.keys() == ranges.keys()
    assert all(torch.equal(found[name].high_K, ranges[name].high_K) for name in ranges)


def integer_parts(layers: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in layers.items() if name.endswith(("weight", "input_scale", "input_zero"))}


@needs_integers
def test_int8_is_made_with_the_ranges_of_the_training(bench: Workbench, rows: LabelledSet) -> None:
    manifest, recovered = recover(bench, SERVED, rows, ROUNDED)
    assert manifest.spec.precision is Precision.INT8
    trained = bench.recovered.load(recovered)
    _, ranges = without_ranges(trained)
    start, _, _ = cut(bench, HALF.before_training())
    first = input_ranges(bench.base, start, bench.train.sequences)
    assert all(torch.equal(ranges[name].low_K, first[name].low_K) for name in first)
    _, layers = bench.store.load(manifest.variant_id)
    again = quantize(bench.base, trained, ())
    assert all(torch.equal(layers[name], again[name]) for name in layers)


@needs_integers
def test_float32_of_it_has_no_ranges(bench: Workbench, rows: LabelledSet) -> None:
    manifest, _ = recover(bench, SERVED, rows, ROUNDED)
    plain = build_variant(bench, replace(manifest.spec, precision=Precision.FLOAT32))
    _, layers = bench.store.load(plain.variant_id)
    assert layers.keys() == cut(bench, HALF)[0].keys()


@needs_integers
def test_it_is_another_recipe(bench: Workbench, rows: LabelledSet) -> None:
    rounded, _ = recover(bench, SERVED, rows, ROUNDED)
    plain, _ = recover(bench, SERVED, rows, SHORT)
    assert rounded.variant_id != plain.variant_id
    assert identify(bench, plain.spec) == plain.variant_id
    assert "quantized" not in SHORT.as_dict() and ROUNDED.as_dict()["quantized"] is True


@needs_integers
def test_locked_zeros_stay_zeros_in_integers(bench: Workbench, rows: LabelledSet) -> None:
    manifest, _ = recover(bench, replace(ZEROS, precision=Precision.INT8), rows, ROUNDED)
    before, _, _ = cut(bench, ZEROS)
    _, layers = bench.store.load(manifest.variant_id)
    for name, tensor in before.items():
        if tensor.ndim == 2:
            assert not layers[name][tensor == 0].any(), name


@needs_integers
def test_a_rounded_run_that_was_killed_goes_on_as_if_it_had_not_been(bench: Workbench, rows: LabelledSet) -> None:
    whole, _ = recover(bench, SERVED, rows, ROUNDED)
    (bench.recovered.folder).rename(bench.root / "whole")

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recover(bench, SERVED, rows, ROUNDED, report=stop)
    assert checkpoints_of(bench.root, cut_id(bench, SERVED), ROUNDED.digest_with(rows.digest))
    resumed, _ = recover(bench, SERVED, rows, ROUNDED, resume=True)
    assert (resumed.variant_id, resumed.weights_sha256) == (whole.variant_id, whole.weights_sha256)


def test_gradual_cuts_are_refused() -> None:
    with pytest.raises(SpecError, match="use gradual=0"):
        replace(ROUNDED, gradual=0.5)


def test_a_machine_without_integers_is_told_so_before_the_training(
    bench: Workbench, rows: LabelledSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing should be trained")

    monkeypatch.setattr("pruning.slim.quantized.multiplies_integers", lambda: False)
    monkeypatch.setattr("pruning.recovery.distillation.train", refuse)
    with pytest.raises(ValueError, match="needs an x86-64 processor"):
        recover(bench, SERVED, rows, ROUNDED)
