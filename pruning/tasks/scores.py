"""One number for a text, or for a pair of texts.

A row has ``text`` (or ``sentence``), an optional ``text_pair``, and ``score``: a number.
"""

import math
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from pruning.data import LabelledSet, labelled_set
from pruning.errors import DataError
from pruning.heads import Head
from pruning.metrics import Metric, fisher_interval, pearson, spearman
from pruning.records import read_records
from pruning.tasks.base import Judgement
from pruning.tasks.fields import require_kind, texts_of
from pruning.tasks.labels import MAX_TOKENS, random_signs
from pruning.tokenization import TextTokenizer


class Scores:
    """Regression: Pearson's correlation with Fisher's interval; agreement is that with the dense model's numbers."""

    head: ClassVar[Head] = Head.SCORE
    loss_name: ClassVar[str] = "squared_error"
    max_tokens: ClassVar[int] = MAX_TOKENS

    def load(self, path: Path, labels: Sequence[str], tokenizer: TextTokenizer, max_length: int) -> LabelledSet:
        """Return the rows of a file, encoded.

        Raises:
            DataError: the file cannot be used, or a row has no number.
        """
        texts, scores = [], []
        for where, values in read_records(path):
            require_kind(values, where, Head.SCORE)
            text, pair = texts_of(values, where, "score")
            texts.append(text if pair is None else (text, pair))
            scores.append(_number(values, where))
        sequences = tokenizer.encode(texts, max_length=max_length)
        return labelled_set(sequences, torch.tensor(scores, dtype=torch.float32), Head.SCORE)

    def loss(self, outputs: Tensor, labels: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the summed squared error."""
        return functional.mse_loss(outputs[:, 0], labels, reduction="sum")

    def soft_loss(
        self, outputs: Tensor, target: Tensor, labels: Tensor, lengths: Sequence[int], temperature: float
    ) -> Tensor:
        """Return the summed squared error to the dense model's numbers; they have no temperature."""
        return functional.mse_loss(outputs[:, 0], target[:, 0], reduction="sum")

    def answers(self, labels: Tensor) -> int:
        """Return the number of rows."""
        return len(labels)

    def own_losses(self, outputs: Tensor, lengths: Sequence[int], generator: torch.Generator) -> list[Tensor]:
        """Return the loss of numbers that are normally distributed about the model's, with variance 1: exact."""
        return [(random_signs(outputs[:, 0].shape, generator) * outputs[:, 0]).sum()]

    def judge(self, outputs: Tensor, reference: Tensor, rows: LabelledSet) -> Judgement:
        """Return Pearson's and Spearman's correlation and the mean squared error."""
        ours, dense, true = (values.double().numpy() for values in (outputs[:, 0], reference[:, 0], rows.labels))
        correlation = pearson(ours, true)
        low, high = fisher_interval(correlation, len(rows))
        return Judgement(
            metric=Metric(name="pearson", value=correlation, low=low, high=high),
            agreement=1.0 if (ours == dense).all() else pearson(ours, dense),
            others={"spearman": spearman(ours, true), "mse": float(((ours - true) ** 2).mean())},
        )


def _number(values: Mapping[str, Any], where: str) -> float:
    score = values.get("score")
    try:
        number = float(score) if isinstance(score, int | float | str) and not isinstance(score, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{where}: the model gives a number (a regression head), and the row's 'score' is {reprlib.repr(score)}; "
            "give each row a finite number there"
        )
    return number
