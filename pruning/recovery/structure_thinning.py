"""Heads and neurons go one after the other while the student trains.

How many go from each sublayer is what the cached cost curves say of the sparsity at that moment; which ones, what the
criterion says of the student as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.recovery.criteria.base import StructureCriterion
from pruning.recovery.narrowing import Kept, narrowed
from pruning.recovery.student import Student
from pruning.recovery.thinning import Thinning, cubic

Counts = tuple[list[int], list[int]]
"""Heads and neurons of every layer."""


@dataclass(slots=True)
class StructureThinning(Thinning[StructureCriterion]):
    """The cutting of heads and neurons in one run."""

    counts_at: Callable[[float], Counts]
    """Share of the sparsity -> heads and neurons that each layer keeps."""

    def is_over(self, student: Student) -> bool:
        """Tell whether the student is as narrow as it is to be."""
        return student.counts() == self.counts_at(1.0)

    def cut(self, student: Student, step: int, over: float) -> Student:
        """Return a narrower student; the memory of what is gone goes too."""
        heads, neurons = self.counts_at(cubic(over))
        scores = self.criterion.structures(self._memory, student, heads)
        kept = [
            Kept(_largest(of_heads, num_heads), _largest(of_neurons, num_neurons))
            for of_heads, num_heads, of_neurons, num_neurons in zip(
                scores.heads, heads, scores.neurons, neurons, strict=True
            )
        ]
        self._memory = {kind: narrowed(known, kept, student.head_dim) for kind, known in self._memory.items()}
        return student.narrowed(lambda tensors: narrowed(tensors, kept, student.head_dim), step)


def _largest(scores: Tensor, count: int) -> Tensor:
    """Return the indices of the ``count`` largest scores, ascending; of equals the first."""
    order = torch.argsort(scores, descending=True, stable=True)
    return order[:count].sort().values
