"""Criteria on single weights that take a pass of their own over the calibration rows, cached once made.

Letters: I inputs and O outputs of a linear layer.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor

from pruning.calibration import Calibration
from pruning.encoder import BaseModel
from pruning.scores.base import StructureScores
from pruning.scores.lifting import lifted
from pruning.spec import Scope
from pruning.weight_pass import Accumulator, Plan, Reading


class Streamed(ABC):
    """A scorer whose sums come from ``pruning.weight_pass``; heads and neurons by ``pruning.scores.lifting``."""

    name: ClassVar[str]
    version: ClassVar[int]
    scope: ClassVar[Scope]
    plan: ClassVar[Plan] = Plan()
    """What its pass differentiates, and with what noise."""

    @abstractmethod
    def accumulator(self, base: BaseModel) -> Accumulator:
        """Return the empty sums; what they finish with is what is cached."""

    def weights(self, base: BaseModel, calibration: Calibration) -> Mapping[str, Tensor]:
        """Return the cached sums of every prunable weight."""
        sums = calibration.load_sums()
        return {name: sums[name] for name in base.prunable_weights()}

    def structures(self, base: BaseModel, calibration: Calibration) -> StructureScores:
        """Return the mean over the weights that each head and neuron owns."""
        return lifted(base.shape, self.weights(base, calibration))


class Summed(Streamed):
    """A streamed scorer whose score is a sum over batches of one ``term``."""

    @abstractmethod
    def term(self, name: str, weight_OI: Tensor, reading: Reading) -> Tensor:
        """Return what one reading adds to the scores of one tensor, [O, I]."""

    def accumulator(self, base: BaseModel) -> Accumulator:
        """Return sums of ``term``."""
        return WeightSums(base.prunable_weights(), self.term)


class WeightSums:
    """For every prunable weight the sum over readings of a term."""

    def __init__(self, weights: Mapping[str, Tensor], term: Callable[[str, Tensor, Reading], Tensor]) -> None:
        """Begin with nothing."""
        self._weights = weights
        self._term = term
        self._sums: dict[str, Tensor] = {}

    def add(self, reading: Reading) -> None:
        """Add a reading's terms."""
        for name, weight_OI in self._weights.items():
            term_OI = self._term(name, weight_OI, reading)
            self._sums[name] = self._sums[name].add_(term_OI) if name in self._sums else term_OI

    def finish(self) -> dict[str, Tensor]:
        """Return the sums."""
        return self._sums
