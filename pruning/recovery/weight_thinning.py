"""Single weights go while the student trains, at full size: zeros, as an unstructured cut has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pruning.masks.weights import WeightMask, unstructured_mask
from pruning.recovery.criteria.base import WeightCriterion
from pruning.recovery.student import Student
from pruning.recovery.thinning import Thinning, cubic
from pruning.slim.convert import put_together, told_apart
from pruning.spec import Scope

GONE = -1.0
"""The score of a weight that never comes back: less than any criterion gives."""
OVER = "over"


@dataclass(slots=True)
class WeightThinning(Thinning[WeightCriterion]):
    """The cutting of single weights in one run, to exactly ``sparsity`` of every scope."""

    sparsity: float
    scope: Scope = Scope.GLOBAL
    _over: bool = field(default=False, init=False)

    def is_over(self, student: Student) -> bool:
        """Tell whether the pattern is locked."""
        return self._over

    def cut(self, student: Student, step: int, over: float) -> Student:
        """Return the student with more zeros. They are locked at the end, and before it unless weights may regrow."""
        self._over = over == 1.0
        mask = self._mask(student, cubic(over) * self.sparsity)
        return student.masked(mask, step, locked=self._over or not self.criterion.regrows)

    def _mask(self, student: Student, sparsity: float) -> WeightMask:
        """Return which weights of the student's matrices stay, on the CPU."""
        scores = self.criterion.scores(self._memory, student.matrices)
        apart: dict[str, Tensor] = {}
        for name, score_OI in scores.items():
            if name in student.kept:
                score_OI = score_OI.masked_fill(~student.kept[name], GONE)
            apart |= told_apart(name, score_OI.cpu())
        return put_together(unstructured_mask(apart, sparsity, self.scope))

    def state(self) -> dict[str, Tensor]:
        """Return what must be known to go on."""
        return Thinning.state(self) | {OVER: torch.tensor(self._over)}

    def restore(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Go on from ``state``."""
        Thinning.restore(self, state, device)
        self._over = bool(state[OVER])
