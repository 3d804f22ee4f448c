"""Gradual cutting: what goes, goes bit by bit while the student trains, in place of all at once before.

The sparsity follows the cubic schedule of Zhu and Gupta (2017), from 0 to the cut's between two shares of the run,
``gradual_from`` and ``gradual``; every ``cut_every`` steps more goes. What goes is what matters least by a criterion
that the run itself computes (``pruning.recovery.criteria``).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from pruning.recovery.crew import Crew, total_by_name
from pruning.recovery.criteria.base import Criterion, Memory, Moment
from pruning.recovery.recipe import Recipe
from pruning.recovery.student import Student
from pruning.recovery.watching import Watch

C = TypeVar("C", bound=Criterion)
SEEN, MEMORY = "seen", "memory"


@dataclass(slots=True)
class Thinning(ABC, Generic[C]):
    """The cutting of one run: what goes when, and what has been seen of what is left."""

    recipe: Recipe
    criterion: C
    _memory: Memory = field(default_factory=dict, init=False)
    _seen: int = field(default=0, init=False)
    """Batches."""

    @abstractmethod
    def is_over(self, student: Student) -> bool:
        """Tell whether all is gone that is to go."""

    @abstractmethod
    def cut(self, student: Student, step: int, over: float) -> Student:
        """Return the student, ``step`` steps old, without what is gone at ``over`` of the schedule, in (0, 1]."""

    def watch(self, student: Student) -> Watch:
        """Return what looks at the next batch."""
        return self.criterion.watch(student)

    def observe(self, student: Student, watch: Watch, task_loss: Tensor, crew: Crew) -> None:
        """Take note of what the loss of the labels says of the student that has not learned from it yet.

        ``task_loss`` is this worker's part; what is taken note of is the whole ``crew``'s.
        """
        self._seen += 1
        moment = Moment(self._seen, self.recipe.cut_every)
        with torch.no_grad():
            gradients = total_by_name(watch.gradients(task_loss), crew)
            self.criterion.take_note(self._memory, student.parameters, gradients, moment)

    def thinned(self, student: Student, step: int, share: float) -> Student:
        """Return the student without what goes after ``step`` steps, at ``share`` of the run; some batch was seen."""
        over = over_at(self.recipe, share)
        if self.is_over(student) or over <= 0.0 or (step % self.recipe.cut_every and over < 1.0):
            return student
        with torch.no_grad():
            return self.cut(student, step, over)

    def state(self) -> dict[str, Tensor]:
        """Return what must be known to go on."""
        tensors = {
            f"{MEMORY}/{kind}/{name}": tensor.cpu()
            for kind, known in self._memory.items()
            for name, tensor in known.items()
        }
        return tensors | {SEEN: torch.tensor(self._seen)}

    def restore(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Go on from ``state``."""
        self._seen, self._memory = int(state[SEEN]), {}
        for path, tensor in state.items():
            if path.startswith(f"{MEMORY}/"):
                _, kind, name = path.split("/")
                self._memory.setdefault(kind, {})[name] = tensor.to(device)


AnyThinning = Thinning[Any]
"""Whatever it is that goes."""


def over_at(recipe: Recipe, share: float) -> float:
    """Return how much of the schedule is over at ``share`` of the run: 0 or less before it begins, 1 from its end."""
    return min(1.0, (share - recipe.gradual_from) / (recipe.gradual - recipe.gradual_from))


def cubic(over: float) -> float:
    """Return the share of the sparsity that is reached when ``over`` of the schedule is over: fast, then slower."""
    return 1.0 - (1.0 - over) ** 3
