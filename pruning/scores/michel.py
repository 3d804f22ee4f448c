"""Michel's head importance, for every structure and weight."""

from typing import ClassVar

from torch import Tensor

from pruning.calibration import Calibration
from pruning.encoder import BaseModel
from pruning.scores.base import StructureScores
from pruning.scores.streamed import Summed
from pruning.scores.units import UnitScores, by_head
from pruning.spec import Scope
from pruning.unit_pass import UnitStatistics
from pruning.weight_pass import Reading


class Michel(Summed):
    """``E |dL/dm|``, divided by the l2 norm over the layer (Michel et al., 2019, for attention heads).

    The expectation is over the cached micro-batches of calibration rows, within which gradients are summed (theirs:
    single examples, of the evaluation set). Departures: neurons are scored like heads; and for a single weight, whose
    mask gradient is ``w * dL/dw``, the expectation is over batches of 32 rows and the norm over its tensor.
    The norm makes all layers equal: real differences between them are lost.
    """

    name: ClassVar[str] = "michel"
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.GLOBAL

    def structures(self, base: BaseModel, calibration: Calibration) -> StructureScores:
        """Return the normalised mean size of the mask gradient of every head and neuron."""
        heads, neurons = calibration.head_gradients_MLN, calibration.neuron_gradients_MLF
        return StructureScores(_normalised(heads.double().abs().mean(0)), _normalised(neurons.double().abs().mean(0)))

    def units(self, base: BaseModel, calibration: Calibration, statistics: UnitStatistics) -> UnitScores:
        """Return the normalised mean size of the mask gradient of every unit."""
        sizes = (
            part_MLNH.double().abs().mean(0).flatten(1)
            for part_MLNH in (statistics.qk_gradients_MLNH, statistics.vo_gradients_MLNH)
        )
        return UnitScores(*(by_head(base.shape, _normalised(sizes_LW)) for sizes_LW in sizes))

    def weights(self, base: BaseModel, calibration: Calibration) -> dict[str, Tensor]:
        """Return the normalised mean size of ``w * dL/dw`` of every weight."""
        return {
            name: _normalised(sums_OI.double().flatten()[None]).view_as(sums_OI)
            for name, sums_OI in super().weights(base, calibration).items()
        }

    def term(self, name: str, weight_OI: Tensor, reading: Reading) -> Tensor:
        """Return ``|w * dL/dw|`` of one batch."""
        return (weight_OI * reading.gradients[name]).abs()


def _normalised(scores_LU: Tensor) -> Tensor:
    """Return each row over its l2 norm; a row of zeros stays one."""
    norms_L1 = scores_LU.square().sum(1, keepdim=True).sqrt()
    return (scores_LU / norms_L1.masked_fill(norms_L1 == 0, 1.0)).float()
