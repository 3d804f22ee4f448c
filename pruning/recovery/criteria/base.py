"""What a criterion of gradual cutting is: what it looks at, what it remembers of every batch, what it makes of that.

A criterion holds nothing itself: what one run remembers is passed in, so that it can be written to a checkpoint and
narrowed with the student. Scores are larger for what is to stay, and 0 at least.

Letters: N heads, F neurons of a layer, O outputs and I inputs of a matrix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from pruning.recovery.student import Student
from pruning.recovery.watching import Watch

Memory = dict[str, dict[str, Tensor]]
"""What is remembered: of which kind -> of which tensor, by ``layers.<n>.<slot>.<part>`` -> a number for each value."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a batch is seen."""

    number: int
    """Of the batches seen in this run, counted from 1."""
    window: int
    """Batches from one cut to the next."""

    @property
    def ends_a_window(self) -> bool:
        """Whether a cut may follow this batch."""
        return self.number % self.window == 0


class StructureScores(NamedTuple):
    """Layer by layer; comparable within a layer's heads, and within its neurons, alone."""

    heads: list[Tensor]
    """[N] each."""
    neurons: list[Tensor]
    """[F] each."""


class Criterion(Protocol):
    """What is common to criteria of structures and of single weights."""

    def watch(self, student: Student) -> Watch:
        """Return what looks at the next batch."""

    def take_note(
        self, memory: Memory, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], moment: Moment
    ) -> None:
        """Take a batch into ``memory``, in place.

        Args:
            memory: of all batches before.
            weights: the student's tensors that this batch saw.
            gradients: what the watch found, of the loss by the rows' own labels.
            moment: when.
        """


class StructureCriterion(Criterion, Protocol):
    """One that ranks heads and neurons."""

    def structures(self, memory: Memory, student: Student, heads: Sequence[int]) -> StructureScores:
        """Return the scores of all that the student has; ``heads`` is how many each layer is about to keep."""


class WeightCriterion(Criterion, Protocol):
    """One that ranks single weights."""

    regrows: ClassVar[bool]
    """Whether a weight that was cut goes on learning, and may come back at the next cut."""

    def scores(self, memory: Memory, matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the scores [O, I] of every matrix of the student."""


def remembered(memory: Memory, kind: str, name: str, like: Tensor) -> Tensor:
    """Return what is remembered of a tensor, to be changed in place: zeros at first."""
    known = memory.setdefault(kind, {})
    if name not in known:
        known[name] = torch.zeros_like(like)
    return known[name]
