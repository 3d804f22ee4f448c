"""One batch in front of teacher and student: what the student's answers to it cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pruning.data import LabelledSet
from pruning.evaluation import evaluate
from pruning.prediction import multiplies_bfloat16, predict_logits
from pruning.recovery.crew import SOLO, Crew
from pruning.recovery.forward import batch_on, outputs_of
from pruning.recovery.loss import distillation_loss, hidden_state_loss
from pruning.recovery.recipe import Recipe
from pruning.slim.bert import SlimBert, Tap
from pruning.slim.packed import TokenSequence
from pruning.tasks import TASKS


class Losses(NamedTuple):
    """Of one batch, means over the answers that its rows ask for; of several workers each has a part, which add up."""

    total: Tensor
    """What is trained on."""
    task: Tensor
    """That of the rows' own labels: what structures are scored by while they go."""


class Teaching(Protocol):
    """What a student learns from, and how it is judged meanwhile."""

    @property
    def recipe(self) -> Recipe:
        """How to train."""

    @property
    def crew(self) -> Crew:
        """Who takes the shares of every batch."""

    @property
    def sequences(self) -> Sequence[TokenSequence]:
        """The rows, those trained on and those held out."""

    def losses(self, student: SlimBert, chosen: Sequence[int], tap: Tap | None = None) -> Losses:
        """Return the losses of the ``chosen`` rows, with their gradients; ``tap`` looks into the student."""

    def alone(self) -> "Teaching":
        """Return the same for a worker that has no others."""

    def score(self, student: SlimBert, held_out: Sequence[int]) -> float:
        """Return how well the student does on the ``held_out`` rows; more is better."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """The rows, and the model that knows better."""

    recipe: Recipe
    teacher: SlimBert
    rows: LabelledSet
    device: torch.device
    crew: Crew = SOLO
    """Who takes the other shares of every batch."""

    @property
    def sequences(self) -> Sequence[TokenSequence]:
        """The rows as the model reads them."""
        return self.rows.sequences

    def losses(self, student: SlimBert, chosen: Sequence[int], tap: Tap | None = None) -> Losses:
        """Return the losses of the ``chosen`` rows, with their gradients; ``tap`` looks into the student.

        Products are taken in bfloat16 where that is faster, sums and losses in float32.
        """
        task, labels = TASKS[self.rows.head], self.rows.labels[list(chosen)].to(self.device)
        sequences = [self.rows.sequences[index] for index in chosen]
        lengths, batch = [len(sequence.ids) for sequence in sequences], batch_on(sequences, self.device)
        with torch.no_grad():
            wanted, wanted_hidden = outputs_of(self.teacher, batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=computes_bfloat16(self.device)):
            given, given_hidden = outputs_of(student, batch, tap)
        wanted, given = wanted.float(), given.float()
        answers = max(1, self.crew.total([torch.tensor(task.answers(labels))])[0].item())  # all workers' together
        by_labels = task.loss(given, labels, lengths) / answers
        total = distillation_loss(
            self.recipe,
            soft=task.soft_loss(given, wanted, labels, lengths, self.recipe.temperature) / answers,
            task=by_labels,
            hidden=hidden_state_loss(
                [state.float() for state in given_hidden], [state.float() for state in wanted_hidden], self.crew
            ),
        )
        return Losses(total, by_labels)

    def alone(self) -> "Lesson":
        """Return the same for a worker that has no others."""
        return replace(self, crew=SOLO)

    def score(self, student: SlimBert, held_out: Sequence[int]) -> float:
        """Return the worth of the student's answers to the ``held_out`` rows, by the task's own metric."""
        judged = self.rows.subset(held_out)
        answers = predict_logits(student, judged.sequences, device=self.device)
        return evaluate(answers, answers, judged).metric.value  # agreement with the dense model is not asked for


def computes_bfloat16(device: torch.device) -> bool:
    """Tell whether products in bfloat16 are the faster ones on this device."""
    return multiplies_bfloat16() if device.type == "cpu" else torch.cuda.is_bf16_supported()
