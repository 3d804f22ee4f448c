"""Smooth-Cut: SmoothGrad for weights.

Letters: I inputs and O outputs of a linear layer.
"""

from typing import ClassVar

from torch import Tensor

from pruning.scores.streamed import Summed
from pruning.spec import Scope
from pruning.watched import Noise
from pruning.weight_pass import Plan, Reading

RELATIVE_NOISE = Noise(sigma=0.05, relative=True)
"""5 % of the standard deviation of each layer's outputs; SmoothGrad's 10 to 20 % of the range are for images."""
ABSOLUTE_NOISE = Noise(sigma=1e-3, relative=False)
"""DeepCuts' own: next to nothing where outputs are of order 1, and another share in every layer."""


class SmoothCut(Summed):
    """``sum_b |w * mean_noise dL_b/dw|`` over 10 noisy passes (DeepCuts, arXiv 2212.13392).

    Their code's ``LayerSmoothGrad``: Gaussian noise on the output of every linear layer, pooler and classifier too;
    gradients are averaged before the absolute value, and scores compete within each tensor. Departures: the noise is
    a share of each layer's outputs (``smooth_cut_absolute`` has theirs); eval mode in place of dropout; the loss is
    summed over a batch of 32 rows (theirs: mean over 16); only the weights of the encoder's linear layers are scored.
    """

    name: ClassVar[str] = "smooth_cut"
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.LAYERWISE
    plan: ClassVar[Plan] = Plan(noise=RELATIVE_NOISE)

    def term(self, name: str, weight_OI: Tensor, reading: Reading) -> Tensor:
        """Return ``|w * mean_noise dL/dw|`` of one batch."""
        return (weight_OI * reading.gradients[name]).abs()


class SmoothCutAbsolute(SmoothCut):
    """``smooth_cut`` with the noise of DeepCuts' code: standard deviation 0.001 on every output, whatever its size."""

    name: ClassVar[str] = "smooth_cut_absolute"
    version: ClassVar[int] = 1
    plan: ClassVar[Plan] = Plan(noise=ABSOLUTE_NOISE)
