"""Quantization-aware training: float32 layers that compute what their integers would, and still have gradients.

Forward, weights and inputs are rounded to the very numbers that ``quantize`` makes of them (Jacob et al., 2018, section
3); backward, rounding is the identity, and inputs beyond their range have no gradient (the straight-through estimator;
Bengio et al., 2013). Scales of weights follow the weights. Those of inputs come from ranges that are read off
calibration rows once, before the training, and stay with the layers: Zafrir et al. (2021) have moving averages, and
their weights are symmetric per tensor, where ours have a scale per output.

Letters: N outputs and K inputs of a matrix, T tokens.
"""

import torch
from torch import Tensor
from torch.nn import functional

from pruning.quantization import ENDS, Range, quantized_matrix, smoothed
from pruning.slim.bert import SlimBert
from pruning.slim.linear import Linear, finish
from pruning.slim.quantized import INPUT_TOP


class FakeQuantizedLinear(Linear):
    """A ``Linear`` whose weights and inputs are rounded as those of the ``QuantizedLinear`` that it is to become."""

    def __init__(self, plain: Linear, seen: Range, *, smooth: bool) -> None:
        """Take over the parameters of ``plain``, whose inputs are in the range ``seen``."""
        outputs, inputs = plain.weight.shape
        super().__init__(inputs, outputs)
        self.weight, self.bias = plain.weight, plain.bias
        self._smooth = smooth
        for name, values in zip(ENDS, (seen.low_K, seen.high_K), strict=True):
            self.register_buffer(name, values.to(plain.weight.device))

    input_low: Tensor
    """[K]."""
    input_high: Tensor
    """[K]."""

    def forward(
        self,
        inputs: Tensor,
        start: int = 0,
        stop: int | None = None,
        *,
        activation: str | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Return outputs ``start`` to ``stop`` of ``inputs W^T + b``, through an activation or added to a residual."""
        rows = slice(start, self.bias.shape[0] if stop is None else stop)
        with torch.autocast(inputs.device.type, enabled=False):  # bfloat16 would round a second time
            inputs_TK, weight_NK = self.rounded(inputs.float())
            outputs = functional.linear(inputs_TK, weight_NK[rows], self.bias[rows])
        return finish(outputs, activation, residual)

    def rounded(self, inputs_TK: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and weights as the integers stand for them, with straight-through gradients."""
        seen = Range(self.input_low, self.input_high)
        parts = quantized_matrix(self.weight.detach(), seen, smooth=self._smooth)
        factor_K, zero = parts["input_factor"], parts["input_zero"]
        # In the order in which QuantizedLinear rounds: the same bits in, the same integer out.
        steps_TK = torch.addcmul(zero + 0.5, inputs_TK, factor_K).clamp(0, INPUT_TOP)
        whole_TK = (steps_TK.detach().floor() - zero) / factor_K
        inputs_TK = _straight_through((steps_TK - zero - 0.5) / factor_K, whole_TK)
        divisor_K = 1 / (factor_K * parts["input_scale"])
        whole_NK = parts["weight"] * parts["weight_scale"][:, None] / divisor_K
        return inputs_TK, _straight_through(self.weight, whole_NK)


def round_as_integers(model: SlimBert, name: str, seen: Range) -> None:
    """Let the matrix ``name`` of a model compute as its integers would, on inputs in the range ``seen``."""
    plain = model.get_submodule(name)
    assert isinstance(plain, Linear)
    model.set_submodule(name, FakeQuantizedLinear(plain, seen, smooth=smoothed(name)))


def _straight_through(exact: Tensor, rounded: Tensor) -> Tensor:
    """Return ``rounded`` with the gradient of ``exact``."""
    return exact + (rounded - exact).detach()
