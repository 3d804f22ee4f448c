"""What a scorer is, and what it returns.

Letters: L layers, N heads, F FFN neurons.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from pruning.calibration import Calibration
from pruning.encoder import BaseModel
from pruning.spec import Scope


@dataclass(frozen=True, slots=True)
class StructureScores:
    """One importance score per structure, larger = keep; heads and neurons on one scale."""

    heads_LN: Tensor
    neurons_LF: Tensor


class Scorer(Protocol):
    """One published criterion on a frozen model: one file, one formula."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised whenever the scores change; part of every variant's identity."""
    scope: ClassVar[Scope]
    """Among which single weights its authors compare scores; a spec may say another one."""

    def structures(self, base: BaseModel, calibration: Calibration) -> StructureScores:
        """Return the importance of every head and neuron."""

    def weights(self, base: BaseModel, calibration: Calibration) -> Mapping[str, Tensor]:
        """Return the importance of every prunable weight, by tensor name."""
