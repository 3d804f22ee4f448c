"""What a task is: rows of a file -> encoded rows, the loss that scores a model, the metric that judges its cuts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from pruning.data import LabelledSet
from pruning.heads import Head
from pruning.metrics import Metric
from pruning.tokenization import TextTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a model's outputs on labelled rows are worth."""

    metric: Metric
    """The task's primary one."""
    agreement: float
    """How far the answers are the dense model's: see each task."""
    others: Mapping[str, float] = field(default_factory=dict)
    """Further metrics by name."""


class Task(Protocol):
    """One kind of rows, for one head: one file."""

    head: ClassVar[Head]
    loss_name: ClassVar[str]
    """Part of the calibration's key."""
    max_tokens: ClassVar[int]
    """Longest labelled sequence used for scoring and evaluation; longer ones are cut."""

    def load(self, path: Path, labels: Sequence[str], tokenizer: TextTokenizer, max_length: int) -> LabelledSet:
        """Return the rows of a file for a model with these labels, cut at ``max_length`` tokens.

        Raises:
            DataError: the file cannot be used, or a row does not fit the head (its line is named).
        """

    def loss(self, outputs: Tensor, labels: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the loss of some rows, summed, so that a row's gradient does not depend on who shares its batch.

        Args:
            outputs: of the model: [n, labels], or [T, labels] of a head that reads every token.
            labels: of these rows, as in ``LabelledSet``.
            lengths: tokens of each.
        """

    def soft_loss(
        self, outputs: Tensor, target: Tensor, labels: Tensor, lengths: Sequence[int], temperature: float
    ) -> Tensor:
        """Return how far the outputs of some rows are from the dense model's, ``target``, summed as ``loss`` is.

        Labels only say which tokens have one. Probabilities are those of outputs divided by ``temperature``; its square
        times the loss keeps the gradient's size independent of it (Hinton et al., 2015).
        """

    def answers(self, labels: Tensor) -> int:
        """Return how many answers the losses of rows with these labels are sums over, to make means of them."""

    def own_losses(self, outputs: Tensor, lengths: Sequence[int], generator: torch.Generator) -> list[Tensor]:
        """Return losses without labels, in which the model's own answers take their place.

        Over rows and losses, the squares of a row's own gradients add up to the true Fisher information, ``sum_y p_y
        (d log p_y)^2`` over the answers y that it may give: exactly, or in the mean over what ``generator`` draws. The
        square of a whole batch's gradient does in the mean over random signs of the rows.
        """

    def judge(self, outputs: Tensor, reference: Tensor, rows: LabelledSet) -> Judgement:
        """Return the worth of ``outputs`` on ``rows``, beside the dense model's outputs ``reference``."""
