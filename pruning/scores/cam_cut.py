"""Cam-Cut: GradCAM for weights.

Letters: I inputs and O outputs of a linear layer.
"""

from typing import ClassVar

from torch import Tensor

from pruning.scores.streamed import Summed
from pruning.spec import Scope
from pruning.weight_pass import Reading

SHIFT = 10.0
"""What the shifted variant adds to a mean activation (DeepCuts' code)."""


class CamCut(Summed):
    """``sum_b |w_ij * dL_b/dw_ij * a_i|``, a_i the mean of output i over the batch (DeepCuts, arXiv 2212.13392).

    Their code's ``LayerGradCAM``, whose scores compete within each tensor. Departures: eval mode in place of dropout;
    the loss is summed over a batch of 32 rows (theirs: mean over 16); means over tokens leave padding out; only the
    weights of the encoder's linear layers are scored. An output that is zero on average scores exactly zero.
    """

    name: ClassVar[str] = "cam_cut"
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.LAYERWISE
    shift: ClassVar[float] = 0.0

    def term(self, name: str, weight_OI: Tensor, reading: Reading) -> Tensor:
        """Return ``|w * dL/dw * (shift + a)|`` of one batch."""
        means_O = reading.sightings.output_means[name] + self.shift
        return (weight_OI * reading.gradients[name] * means_O[:, None]).abs()


class CamCutShift(CamCut):
    """``sum_b |w_ij * dL_b/dw_ij * (10 + a_i)|``: Cam-Cut with shifted activations (DeepCuts' ``LayerGradCAMShift``).

    With means well under 10 this is nearly ``sum_b |w * dL_b/dw|``, and no output scores zero for being zero on
    average. Departures as in ``CamCut``.
    """

    name: ClassVar[str] = "cam_cut_shift"
    version: ClassVar[int] = 1
    shift: ClassVar[float] = SHIFT
