"""Magnitude: no data, the weights are the scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pruning.calibration import Calibration
from pruning.encoder import BaseModel
from pruning.scores.base import StructureScores
from pruning.scores.lifting import structure_sums
from pruning.spec import Scope


@dataclass(frozen=True, slots=True)
class Magnitude:
    """Absolute weight, ``|w|``, summed over the weights that a structure owns (Han et al., 2015; Li et al., 2017)."""

    name: ClassVar[str] = "magnitude"
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.GLOBAL

    def structures(self, base: BaseModel, calibration: Calibration) -> StructureScores:
        """Sum ``|w|`` over a head's rows of Q, K, V and columns of O, and over a neuron's row and column."""
        return structure_sums(base.shape, self.weights(base, calibration))

    def weights(self, base: BaseModel, calibration: Calibration) -> Mapping[str, Tensor]:
        """Return ``|w|``."""
        return {name: weight.abs() for name, weight in base.prunable_weights().items()}
