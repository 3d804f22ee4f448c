"""First-order Taylor importance."""

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
class Taylor:
    """Size of the first-order change of the loss, ``|mean_x dL/dm|`` (Molchanov et al., 2019; SNIP, Lee et al., 2019).

    For a structure, m is a mask of ones on the input of its output projection, so that ``dL/dm`` is the sum of
    ``w * dL/dw`` over the structure's output weights. For a weight, the score is ``|w * mean_x dL/dw|``. The
    absolute value is taken once, after the mean over the calibration rows.
    """

    name: ClassVar[str] = "taylor"
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.GLOBAL

    def structures(self, base: BaseModel, calibration: Calibration) -> StructureScores:
        """Return ``|mean_x dL/dm|`` of every head and neuron."""
        heads, neurons = calibration.head_gradients_MLN, calibration.neuron_gradients_MLF
        return StructureScores(heads.double().mean(0).abs().float(), neurons.double().mean(0).abs().float())

    def units(self, base: BaseModel, calibration: Calibration, statistics: UnitStatistics) -> UnitScores:
        """Return ``|mean_x dL/dm|`` of every unit."""
        gradients = (statistics.qk_gradients_MLNH, statistics.vo_gradients_MLNH)
        return UnitScores(*(part_MLNH.double().mean(0).abs().float() for part_MLNH in gradients))

    def weights(self, base: BaseModel, calibration: Calibration) -> Mapping[str, Tensor]:
        """Return ``|w * mean_x dL/dw|`` of every weight."""
        gradients = calibration.weight_gradient_means()
        return {name: (weight * gradients[name]).abs() for name, weight in base.prunable_weights().items()}
