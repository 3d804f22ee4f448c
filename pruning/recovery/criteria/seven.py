"""SEVEN along fine-tuning."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from pruning.recovery.criteria.base import Memory, Moment, remembered
from pruning.recovery.student import Student
from pruning.recovery.watching import Watch, WeightGradients
from pruning.scores.seven import seven_term


class SevenDynamic:
    """``S_t = S_t-1 + |w g_t m^_t / v^_t|`` with ``g_t = |dL_t/dw|`` along the run (SEVEN_dyn, arXiv 2403.12688).

    The recurrences are those of ``pruning.scores.seven``; a step is an optimizer step, and a weight that was cut never
    returns, as in the paper. Departures: L is the loss of the labels alone, whatever else is trained on; w is the
    weight that the gradient was taken at, where the authors' code reads it after the optimizer moved it; masks are
    chosen at every cut, theirs at every step.
    """

    regrows: ClassVar[bool] = False

    def watch(self, student: Student) -> Watch:
        """Return a look at every matrix."""
        return WeightGradients(student.matrices)

    def take_note(
        self, memory: Memory, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], moment: Moment
    ) -> None:
        """Take one step."""
        for name, gradient_OI in gradients.items():
            first_OI, second_OI = (remembered(memory, kind, name, gradient_OI) for kind in ("first", "second"))
            term_OI = seven_term(weights[name], gradient_OI, first_OI, second_OI, moment.number)
            remembered(memory, "score", name, gradient_OI).add_(term_OI)

    def scores(self, memory: Memory, matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums."""
        return dict(memory["score"])
