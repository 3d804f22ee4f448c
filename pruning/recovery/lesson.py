"""One batch in front of teacher and student: what the student's answers to it cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pruning.data import LabelledSet
from pruning.errors import RecoveryError
from pruning.prediction import multiplies_bfloat16, predict_logits
from pruning.recovery.forward import batch_on, outputs_of
from pruning.recovery.loss import distillation_loss
from pruning.recovery.recipe import Recipe
from pruning.slim.bert import SlimBert, Tap
from pruning.slim.packed import TokenSequence

NAMED_ROWS = 10
"""Most rows that a message names."""


class Losses(NamedTuple):
    """Of one batch, means over its rows."""

    total: Tensor
    """What is trained on."""
    task: Tensor
    """The cross-entropy with the rows' own labels: what structures are scored by while they go."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """The rows, and the model that knows better."""

    recipe: Recipe
    teacher: SlimBert
    rows: LabelledSet
    device: torch.device

    @property
    def sequences(self) -> Sequence[TokenSequence]:
        """The rows as the model reads them."""
        return self.rows.sequences

    def losses(self, student: SlimBert, chosen: Sequence[int], tap: Tap | None = None) -> Losses:
        """Return the losses of the ``chosen`` rows, with their gradients; ``tap`` looks into the student.

        Products are taken in bfloat16 where that is faster, sums and losses in float32.

        Raises:
            RecoveryError: the loss is not finite; the rows are named, counted from 1.
        """
        batch = batch_on([self.rows.sequences[index] for index in chosen], self.device)
        with torch.no_grad():
            target_BC, target_hidden = outputs_of(self.teacher, batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=computes_bfloat16(self.device)):
            logits_BC, hidden = outputs_of(student, batch, tap)
        answers = logits_BC.float(), [state.float() for state in hidden]
        wanted = target_BC.float(), [state.float() for state in target_hidden]
        task = functional.cross_entropy(answers[0], self.rows.labels[list(chosen)].to(self.device))
        total = distillation_loss(self.recipe, answers, wanted, task)
        if not torch.isfinite(total):
            raise RecoveryError(_not_finite(chosen, answers[0], wanted[0]))
        return Losses(total, task)

    def score(self, student: SlimBert, held_out: Sequence[int]) -> float:
        """Return the share of the ``held_out`` rows that is labelled right."""
        judged = self.rows.subset(held_out)
        logits = predict_logits(student, judged.sequences, device=self.device)
        return float((logits.argmax(1) == judged.labels).double().mean())


def computes_bfloat16(device: torch.device) -> bool:
    """Tell whether products in bfloat16 are the faster ones on this device."""
    return multiplies_bfloat16() if device.type == "cpu" else torch.cuda.is_bf16_supported()


def _not_finite(chosen: Sequence[int], logits_BC: Tensor, target_BC: Tensor) -> str:
    """Return which rows have no finite loss, and what helps."""
    bad_B = ~(torch.isfinite(logits_BC).all(1) & torch.isfinite(target_BC).all(1))
    named = [row + 1 for row, bad in zip(chosen, bad_B.tolist(), strict=True) if bad] or [row + 1 for row in chosen]
    words = ", ".join(map(str, named[:NAMED_ROWS])) + (", ..." if len(named) > NAMED_ROWS else "")
    if len(named) < len(chosen):
        return f"the loss is not finite in rows {words}; take them out"
    return f"the loss is not finite in any row of a batch ({words}); train with a lower --learning-rate"
