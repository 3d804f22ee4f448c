"""Gradual magnitude pruning."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from pruning.recovery.criteria.base import Memory, Moment
from pruning.recovery.student import Student
from pruning.recovery.watching import Watch, WeightGradients


class Magnitude:
    """``|w|`` at every cut (Zhu and Gupta, 2017; Zafrir et al., 2021, "Prune Once For All").

    Departures: both compare the weights of one tensor, here the scope says which compete. And a weight that was cut is
    forgotten: Zhu and Gupta's keeps its value behind the mask, and would come back if all others fell below it.
    """

    regrows: ClassVar[bool] = False

    def watch(self, student: Student) -> Watch:
        """Return what looks at nothing: no gradient is needed."""
        return WeightGradients({})

    def take_note(
        self, memory: Memory, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], moment: Moment
    ) -> None:
        """Remember nothing."""

    def scores(self, memory: Memory, matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sizes of the weights as they are now."""
        return {name: matrix_OI.abs() for name, matrix_OI in matrices.items()}
