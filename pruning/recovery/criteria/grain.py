"""GRAIN along distillation.

Letters: W width of the heads of a layer, O outputs and I inputs of a matrix.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from pruning.recovery.criteria.base import Memory, Moment, StructureScores, remembered
from pruning.recovery.student import Student
from pruning.recovery.watching import Watch, WeightGradients
from pruning.scores.grain import BETA, regularised_heads


class Grain:
    """The moving mean of ``|sum over a unit of w dL/dw|``, heads times ``tanh(D / 0.3)`` (GRAIN, Yang et al., 2023).

    Units are those of ``pruning.scores.grain``: a row of W_q with its bias, a column of W_O, a column of the second FFN
    matrix; the decay is 0.998, from zero. The hidden states' loss has no say in L: GRAIN's gradient separation. A head
    scores the mean of its units, times the structure regularisation, which empties nearly empty heads: D is the share
    of the head's VO units among the best, as many as the heads that stay have.

    Departures: L is the loss of the labels, where GRAIN's is the cross-entropy with the teacher's soft labels. GRAIN
    removes units inside heads, here whole heads go. It ranks all units in one list; here they compete within their
    sublayer. And matrices shrink at every cut, in place of a mask at every step.
    """

    def watch(self, student: Student) -> Watch:
        """Return a look at the matrices that have units, and the bias of one of them."""
        wanted = ("qkv.weight", "qkv.bias", "attention_output.weight", "ffn_out.weight")
        return WeightGradients({name: one for name, one in student.parameters.items() if name.endswith(wanted)})

    def take_note(
        self, memory: Memory, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], moment: Moment
    ) -> None:
        """Average the units' scores."""
        for name, gradient in gradients.items():
            product = weights[name] * gradient
            if name.endswith("qkv.weight"):
                bias = name.replace("weight", "bias")
                query_WI, query_bias_W = product.chunk(3)[0], (weights[bias] * gradients[bias]).chunk(3)[0]
                _average(memory, name.replace("qkv", "qk"), query_WI.sum(1) + query_bias_W)
            elif name.endswith("attention_output.weight"):
                _average(memory, name.replace("attention_output", "vo"), product.sum(0))
            elif name.endswith("ffn_out.weight"):
                _average(memory, name.replace("ffn_out", "neurons"), product.sum(0))

    def structures(self, memory: Memory, student: Student, heads: Sequence[int]) -> StructureScores:
        """Return regularised heads, and neurons."""
        average, nothing = memory["average"], next(iter(student.parameters.values())).new_zeros(0)
        qk, vo, neurons = (
            [average.get(f"layers.{layer}.{kind}.weight", nothing) for layer in range(len(heads))]
            for kind in ("qk", "vo", "neurons")
        )
        return StructureScores(regularised_heads(student.head_dim, qk, vo, sum(heads) * student.head_dim), neurons)


class GrainWeights:
    """The moving mean of ``|w dL/dw|`` of a single weight, which is no unit of GRAIN's, with its decay and its loss."""

    regrows: ClassVar[bool] = False

    def watch(self, student: Student) -> Watch:
        """Return a look at every matrix."""
        return WeightGradients(student.matrices)

    def take_note(
        self, memory: Memory, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], moment: Moment
    ) -> None:
        """Average the products' sizes."""
        for name, gradient_OI in gradients.items():
            _average(memory, name, weights[name] * gradient_OI)

    def scores(self, memory: Memory, matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the means."""
        return dict(memory["average"])


def _average(memory: Memory, name: str, value: Tensor) -> None:
    remembered(memory, "average", name, value).lerp_(value.abs(), 1 - BETA)
