"""From criteria of single weights to heads and neurons.

Letters: W width of the heads of a layer, I inputs of a matrix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.recovery.criteria.base import Memory, Moment, StructureScores, WeightCriterion
from pruning.recovery.student import Student
from pruning.recovery.watching import Watch
from pruning.scores.lifting import head_sums, neuron_sums


@dataclass(frozen=True, slots=True)
class Lifted:
    """The sum of a criterion's scores over the weights that a head or neuron owns, as ``pruning.scores.lifting`` says.

    Heads of one layer own equally many weights, and so do its neurons: the sum and the mean rank them alike. What is
    gone is gone: matrices shrink, and nothing comes back.
    """

    of: WeightCriterion

    def watch(self, student: Student) -> Watch:
        """Return what the criterion looks at."""
        return self.of.watch(student)

    def take_note(
        self, memory: Memory, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], moment: Moment
    ) -> None:
        """Take note as the criterion does."""
        self.of.take_note(memory, weights, gradients, moment)

    def structures(self, memory: Memory, student: Student, heads: Sequence[int]) -> StructureScores:
        """Return the sums."""
        scores, lifted = self.of.scores(memory, student.matrices), StructureScores([], [])
        for layer, (num_heads, num_neurons) in enumerate(zip(*student.counts(), strict=True)):
            # A layer without heads or neurons has no matrices of them.
            lifted.heads.append(_heads_of(scores, layer, student.head_dim) if num_heads else torch.zeros(0))
            lifted.neurons.append(_neurons_of(scores, layer) if num_neurons else torch.zeros(0))
        return lifted


def _heads_of(scores: Mapping[str, Tensor], layer: int, head_dim: int) -> Tensor:
    query_WI, key_WI, value_WI = scores[f"layers.{layer}.qkv.weight"].chunk(3)
    return head_sums(query_WI, key_WI, value_WI, scores[f"layers.{layer}.attention_output.weight"], head_dim)


def _neurons_of(scores: Mapping[str, Tensor], layer: int) -> Tensor:
    return neuron_sums(scores[f"layers.{layer}.ffn_in.weight"], scores[f"layers.{layer}.ffn_out.weight"])
