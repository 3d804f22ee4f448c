"""Diagonal true Fisher information of the masks: no labels."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from pruning.calibration import Calibration
from pruning.encoder import BaseModel
from pruning.scores.base import StructureScores
from pruning.scores.streamed import Summed, WeightSums
from pruning.spec import Scope
from pruning.weight_pass import Accumulator, Loss, Plan, Reading


class FisherLabelFree(Summed):
    """``sum_x sum_c p_c(x) (d log p_c(x) / dm)^2``: what ``fisher`` estimates, with the model's own labels.

    For heads and neurons of a classifier it is exact, row by row (the code of Kwon et al., 2022, takes the empirical
    Fisher of whole batches); ``Task.own_losses`` says what it is of other tasks.
    For a weight, whose mask gradient is ``w * d log p_c/dw``, rows share a batch under random signs, and the square is
    right in the mean over the signs. A divergence from the model's own answers would not do: its gradient is zero
    before the first cut. One backward pass per label and batch.
    """

    name: ClassVar[str] = "fisher_label_free"
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.GLOBAL
    plan: ClassVar[Plan] = Plan(loss=Loss.OWN)

    def accumulator(self, base: BaseModel) -> Accumulator:
        """Return sums of squared mask gradients."""
        return MaskSquares(WeightSums(base.prunable_weights(), self.term), base)

    def structures(self, base: BaseModel, calibration: Calibration) -> StructureScores:
        """Return the Fisher information of the mask of every head and neuron."""
        sums = calibration.load_sums()
        return StructureScores(sums["heads_LN"], sums["neurons_LF"])

    def term(self, name: str, weight_OI: Tensor, reading: Reading) -> Tensor:
        """Return ``(w * dl/dw)^2`` of one batch and label."""
        return (weight_OI * reading.gradients[name]).square()


class MaskSquares:
    """Squared mask gradients, row by row, beside the sums of the weights."""

    def __init__(self, weights: WeightSums, base: BaseModel) -> None:
        """Begin with zeros, in double precision."""
        self._weights = weights
        self._heads_LN = torch.zeros(base.shape.num_layers, base.shape.num_heads, dtype=torch.float64)
        self._neurons_LF = torch.zeros(base.shape.num_layers, base.shape.ffn, dtype=torch.float64)

    def add(self, reading: Reading) -> None:
        """Add the squares of one reading."""
        self._weights.add(reading)
        self._heads_LN += reading.head_gradients_BLN.double().square().sum(0)
        self._neurons_LF += reading.neuron_gradients_BLF.double().square().sum(0)

    def finish(self) -> dict[str, Tensor]:
        """Return the sums."""
        masks: Mapping[str, Tensor] = {"heads_LN": self._heads_LN.float(), "neurons_LF": self._neurons_LF.float()}
        return {**self._weights.finish(), **masks}
