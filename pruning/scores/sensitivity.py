"""A budget for each tensor by how much the loss minds it, and magnitude within.

Letters: I inputs and O outputs of a linear layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pruning.calibration import Calibration
from pruning.encoder import BaseModel
from pruning.scores.base import StructureScores
from pruning.scores.lifting import lifted
from pruning.spec import Scope


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """``w^2 * mean over the tensor of mean_b (dL_b/dw)^2``: per-tensor budgets from sensitivity.

    Within a tensor the order is that of magnitude; across tensors, weights are worth what a squared unit of change
    costs there on average, so that one global budget gives every tensor its own. This is the idea of Sensi-BERT (arXiv
    2307.11764), whose formula is not public and which trims during fine-tuning; it is not that method.
    With the layerwise scope nothing is left of it but magnitude.
    """

    name: ClassVar[str] = "sensitivity"
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.GLOBAL

    def structures(self, base: BaseModel, calibration: Calibration) -> StructureScores:
        """Return the mean over the weights that each head and neuron owns."""
        return lifted(base.shape, self.weights(base, calibration))

    def weights(self, base: BaseModel, calibration: Calibration) -> Mapping[str, Tensor]:
        """Return ``w^2`` times the tensor's sensitivity."""
        squares = calibration.weight_gradient_squares()
        return {
            name: weight_OI.square() * squares[name].double().mean().float()
            for name, weight_OI in base.prunable_weights().items()
        }
