"""One batch of plain text in front of the dense encoder and the sparse one: how far their hidden states are apart."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pruning.recovery.crew import SOLO, Crew
from pruning.recovery.forward import batch_on, outputs_of
from pruning.recovery.lesson import Losses, computes_bfloat16
from pruning.recovery.loss import hidden_state_loss
from pruning.recovery.recipe import Recipe
from pruning.slim.bert import SlimBert, Tap
from pruning.slim.packed import TokenSequence


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """Plain text, and the dense encoder whose hidden states are to be met at every token of every layer."""

    recipe: Recipe
    teacher: SlimBert
    sequences: Sequence[TokenSequence]
    device: torch.device
    crew: Crew = SOLO
    """Who takes the other shares of every batch."""

    def losses(self, student: SlimBert, chosen: Sequence[int], tap: Tap | None = None) -> Losses:
        """Return the relative squared error of the hidden states: all that there is to learn without a task."""
        error = self._error(student, chosen, tap, self.crew)
        return Losses(error, error)

    def alone(self) -> "HiddenStates":
        """Return the same for a worker that has no others."""
        return replace(self, crew=SOLO)

    @torch.no_grad()
    def score(self, student: SlimBert, held_out: Sequence[int]) -> float:
        """Return the share of the dense hidden states that is met: 1 less the error, the mean over batches."""
        size = self.recipe.batch_rows
        parts = [held_out[start : start + size] for start in range(0, len(held_out), size)]
        errors = [float(self._error(student, part, None, SOLO)) * len(part) for part in parts]
        return 1.0 - sum(errors) / len(held_out)

    def _error(self, student: SlimBert, chosen: Sequence[int], tap: Tap | None, crew: Crew) -> Tensor:
        batch = batch_on([self.sequences[index] for index in chosen], self.device)
        with torch.no_grad():
            _, target = outputs_of(self.teacher, batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=computes_bfloat16(self.device)):
            _, hidden = outputs_of(student, batch, tap)
        return hidden_state_loss([state.float() for state in hidden], [state.float() for state in target], crew)
