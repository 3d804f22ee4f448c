"""PLATON along fine-tuning."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from pruning.recovery.criteria.base import Memory, Moment, remembered
from pruning.recovery.student import Student
from pruning.recovery.watching import Watch, WeightGradients
from pruning.scores.platon import platon_step


class Platon:
    """``S = I- * U-``: smoothed sensitivity times its uncertainty, along the run (PLATON, arXiv 2206.12562).

    I is ``|w dL/dw|``, its mean over the steps between two cuts (10 in the paper: ``cut_every``); the averages are
    those of ``pruning.scores.platon``. A single weight that was cut goes on learning and may come back at the next cut,
    as in the paper, if there is a step between them. Departures: L is the loss of the labels alone, whatever else is
    trained on; w is the weight that the gradient was taken at, where the authors' code reads it after the optimizer
    moved it; once the whole sparsity is reached the pattern is locked, where theirs is chosen anew at every step to the
    end. Until a first window is over the sensitivity alone decides.
    """

    regrows: ClassVar[bool] = True

    def watch(self, student: Student) -> Watch:
        """Return a look at every matrix."""
        return WeightGradients(student.matrices)

    def take_note(
        self, memory: Memory, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], moment: Moment
    ) -> None:
        """Take a batch into the window; at its end take one step of the averages."""
        for name, gradient_OI in gradients.items():
            window_OI = remembered(memory, "window", name, gradient_OI)
            window_OI.add_((weights[name] * gradient_OI).abs_(), alpha=1.0 / moment.window)
            if moment.ends_a_window:
                platon_step(window_OI, *(remembered(memory, kind, name, gradient_OI) for kind in AVERAGES))
                window_OI.zero_()

    def scores(self, memory: Memory, matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the products."""
        if AVERAGES[0] not in memory:
            return dict(memory["window"])
        return {name: memory[AVERAGES[0]][name] * memory[AVERAGES[1]][name] for name in matrices}


AVERAGES = ("sensitivity", "uncertainty")
