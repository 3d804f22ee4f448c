"""Mask gradients of heads and neurons."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from pruning.recovery.criteria.base import Memory, Moment, StructureScores
from pruning.recovery.student import Student
from pruning.recovery.watching import StructureGates, Watch

DECAY = 0.98
"""Share of a score that earlier batches have."""


class MaskGradient:
    """The moving mean of ``|dL/dm|``, m a mask of ones on a structure's outputs (after Michel et al., 2019).

    That is ``|sum w dL/dw|`` over the output weights of a head or neuron. Departures from Michel et al.: they score
    once, on a model that does not move; here earlier batches count for less, 0.98 a step.
    """

    def watch(self, student: Student) -> Watch:
        """Return gates on every head and neuron."""
        return StructureGates(student)

    def take_note(
        self, memory: Memory, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], moment: Moment
    ) -> None:
        """Average the sizes of the gates' gradients; the first batch is where it begins."""
        scores = memory.setdefault("score", {})
        for name, gradient in gradients.items():
            size = gradient.abs()
            scores[name] = DECAY * scores[name] + (1.0 - DECAY) * size if name in scores else size

    def structures(self, memory: Memory, student: Student, heads: Sequence[int]) -> StructureScores:
        """Return the means."""
        scores, layers = memory["score"], range(len(heads))
        return StructureScores(
            [scores[f"layers.{layer}.heads.gate"] for layer in layers],
            [scores[f"layers.{layer}.neurons.gate"] for layer in layers],
        )
