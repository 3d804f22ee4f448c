"""Diagonal empirical Fisher information of the masks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pruning.calibration import Calibration
from pruning.encoder import BaseModel
from pruning.scores.base import StructureScores
from pruning.scores.units import UnitScores
from pruning.spec import Scope
from pruning.unit_pass import UnitStatistics


@dataclass(frozen=True, slots=True)
class Fisher:
    """Mean squared mask gradient, ``mean_b (dL/dm)^2`` (Kwon et al., 2022, eq. 7).

    The gradients are those of the cached micro-batches; the authors' code takes batches of 32. For a weight the mask
    gradient is ``w * dL/dw``, hence the score ``w^2 * mean_b (dL/dw)^2``, over batches of 32 rows here too.
    """

    name: ClassVar[str] = "fisher"
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.GLOBAL

    def structures(self, base: BaseModel, calibration: Calibration) -> StructureScores:
        """Return the mean squared mask gradient of every head and neuron."""
        heads, neurons = calibration.head_gradients_MLN, calibration.neuron_gradients_MLF
        return StructureScores(heads.double().square().mean(0).float(), neurons.double().square().mean(0).float())

    def units(self, base: BaseModel, calibration: Calibration, statistics: UnitStatistics) -> UnitScores:
        """Return the mean squared mask gradient of every unit."""
        gradients = (statistics.qk_gradients_MLNH, statistics.vo_gradients_MLNH)
        return UnitScores(*(part_MLNH.double().square().mean(0).float() for part_MLNH in gradients))

    def weights(self, base: BaseModel, calibration: Calibration) -> Mapping[str, Tensor]:
        """Return ``w^2 * mean_b (dL/dw)^2`` of every weight."""
        squares = calibration.weight_gradient_squares()
        return {name: weight.square() * squares[name] for name, weight in base.prunable_weights().items()}
