"""The recurrences of every criterion against a few steps computed by hand, along weights that move."""

from collections.abc import Sequence

import pytest
import torch

from pruning.recovery.criteria.base import Criterion, Memory, Moment
from pruning.recovery.criteria.grain import Grain, GrainWeights
from pruning.recovery.criteria.magnitude import Magnitude
from pruning.recovery.criteria.mask_gradient import MaskGradient
from pruning.recovery.criteria.platon import Platon
from pruning.recovery.criteria.seven import SevenDynamic

NAME = "layers.0.ffn_in.weight"


def after(criterion: Criterion, steps: Sequence[tuple[float, float]], *, window: int = 1) -> Memory:
    """Return what is remembered of one weight after (weight, gradient) of each step."""
    memory: Memory = {}
    for number, (weight, gradient) in enumerate(steps, start=1):
        seen = {NAME: torch.tensor([[weight]])}, {NAME: torch.tensor([[gradient]])}
        criterion.take_note(memory, *seen, Moment(number, window))
    return memory


def test_seven_sums_products_times_the_steadiness_of_the_gradient() -> None:
    memory = after(SevenDynamic(), [(2.0, 1.0), (1.5, -3.0)])
    # step 1: m = 0.2, v = 0.1, unbiased 1 and 1; step 2: m = 0.76 over 1 - 0.64, v = 0.99 over 1 - 0.81
    expected = 2 * 1 * 1 / 1 + 1.5 * 3 * (0.76 / 0.36) / (0.99 / 0.19) ** 0.5
    assert float(SevenDynamic().scores(memory, {})[NAME]) == pytest.approx(expected, rel=1e-5)


def test_platon_averages_the_mean_of_every_window_and_how_far_it_is_from_that() -> None:
    memory = after(Platon(), [(2.0, 1.0), (1.0, -4.0), (0.5, 2.0), (3.0, 5.0), (9.0, 9.0)], window=2)
    # I = (2 + 4) / 2 = 3: I- = 0.15 * 3 = 0.45, U- = 0.1 * (3 - 0.45) = 0.255
    # I = (1 + 15) / 2 = 8: I- = 0.85 * 0.45 + 0.15 * 8 = 1.5825, U- = 0.9 * 0.255 + 0.1 * (8 - 1.5825) = 0.87125
    # The fifth batch begins a window that is not over.
    assert float(Platon().scores(memory, {NAME: torch.zeros(1, 1)})[NAME]) == pytest.approx(1.5825 * 0.87125, rel=1e-5)


def test_until_a_window_is_over_platon_goes_by_the_sensitivity() -> None:
    memory = after(Platon(), [(2.0, 1.0), (1.0, -4.0)], window=4)
    assert float(Platon().scores(memory, {NAME: torch.zeros(1, 1)})[NAME]) == pytest.approx((2 + 4) / 4)


def test_grain_averages_the_size_of_a_single_weights_product() -> None:
    memory = after(GrainWeights(), [(2.0, 1.0), (1.5, -3.0)])
    expected = 0.998 * (0.002 * 2.0) + 0.002 * 4.5
    assert float(GrainWeights().scores(memory, {})[NAME]) == pytest.approx(expected, rel=1e-5)


def test_magnitude_remembers_nothing() -> None:
    assert after(Magnitude(), [(2.0, 1.0)]) == {}
    assert Magnitude().scores({}, {NAME: torch.tensor([[-3.0]])})[NAME].tolist() == [[3.0]]


def test_a_mask_gradient_begins_with_the_first_batch_and_keeps_98_parts_of_100() -> None:
    memory: Memory = {}
    for number, gradient in enumerate((-1.0, 3.0), start=1):
        gates = {f"layers.0.{kind}.gate": torch.tensor([gradient]) for kind in ("heads", "neurons")}
        MaskGradient().take_note(memory, {}, gates, Moment(number, 1))
    assert float(memory["score"]["layers.0.heads.gate"]) == pytest.approx(0.98 * 1 + 0.02 * 3)


def test_grain_sums_products_over_units_before_it_takes_their_size() -> None:
    # One head of two dimensions: query, key and value have two rows each.
    weights = {
        "layers.0.qkv.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0], [9.0, 9.0], [9.0, 9.0], [9.0, 9.0]]),
        "layers.0.qkv.bias": torch.tensor([1.0, 1.0, 9.0, 9.0, 9.0, 9.0]),
        "layers.0.attention_output.weight": torch.tensor([[1.0, -2.0], [-3.0, 1.0]]),
        "layers.0.ffn_out.weight": torch.tensor([[1.0, 2.0, 3.0], [-1.0, 2.0, 0.0]]),
    }
    memory: Memory = {}
    Grain().take_note(memory, weights, {name: torch.ones_like(one) for name, one in weights.items()}, Moment(1, 1))
    averages = {name: (one / 0.002).tolist() for name, one in memory["average"].items()}
    assert averages["layers.0.qk.weight"] == pytest.approx([1 + 2 + 1, 3 + 4 + 1])
    assert averages["layers.0.vo.weight"] == pytest.approx([2.0, 1.0])
    assert averages["layers.0.neurons.weight"] == pytest.approx([0.0, 4.0, 3.0])
