"""One label for a text, or for a pair of texts.

A row has ``text`` (or ``sentence``), an optional ``text_pair``, and ``label``: a label's name or its number.
"""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from pruning.data import LabelledSet, labelled_set
from pruning.errors import DataError
from pruning.heads import Head
from pruning.metrics import Metric, f1, matthews, wilson_interval
from pruning.records import read_records
from pruning.tasks.base import Judgement
from pruning.tasks.fields import require_kind, texts_of
from pruning.tasks.soft import soft_label_loss
from pruning.tokenization import TextTokenizer

MAX_DIGITS = 20
"""A label's number is not longer; Python refuses to read those of thousands of digits."""
MAX_TOKENS = 128
"""Longest labelled sequence used for scoring and evaluation; longer ones are cut."""


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One text, or pair of texts, and the index of its label."""

    text: str
    text_pair: str | None
    label: int


class Labels:
    """Text classification: accuracy with Wilson's interval; agreement is the share of rows with the dense label."""

    head: ClassVar[Head] = Head.LABEL
    loss_name: ClassVar[str] = "cross_entropy"
    max_tokens: ClassVar[int] = MAX_TOKENS

    def load(self, path: Path, labels: Sequence[str], tokenizer: TextTokenizer, max_length: int) -> LabelledSet:
        """Return the rows of a file, encoded; raises what ``read_rows`` raises."""
        return encode_rows(read_rows(path, labels), tokenizer, max_length)

    def loss(self, outputs: Tensor, labels: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the summed cross-entropy."""
        return functional.cross_entropy(outputs, labels, reduction="sum")

    def soft_loss(
        self, outputs: Tensor, target: Tensor, labels: Tensor, lengths: Sequence[int], temperature: float
    ) -> Tensor:
        """Return the summed divergence from the dense model's labels."""
        return soft_label_loss(outputs, target, temperature)

    def answers(self, labels: Tensor) -> int:
        """Return the number of rows."""
        return len(labels)

    def own_losses(self, outputs: Tensor, lengths: Sequence[int], generator: torch.Generator) -> list[Tensor]:
        """Return a loss for each label: exact, row by row."""
        return own_label_losses(outputs, generator)

    def judge(self, outputs: Tensor, reference: Tensor, rows: LabelledSet) -> Judgement:
        """Return accuracy and Matthews correlation; of two labels also F1 of the second, as GLUE does."""
        predicted, true = outputs.argmax(1), rows.labels
        correct = int((predicted == true).sum())
        low, high = wilson_interval(correct, len(rows))
        others = {"matthews": matthews(predicted.numpy(), true.numpy(), outputs.shape[1])}
        if outputs.shape[1] == 2:
            found = [(predicted & true).sum(), predicted.sum(), true.sum()]
            others["f1"] = float(f1(*(count.double().numpy() for count in found)))
        return Judgement(
            metric=Metric(name="accuracy", value=correct / len(rows), low=low, high=high),
            agreement=float((predicted == reference.argmax(1)).double().mean()),
            others=others,
        )


def own_label_losses(logits_XC: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Return, for each label c, ``sum_x s_xc p_xc^0.5 log p_xc``: p held fixed, s random signs, x texts or tokens."""
    log_p_XC = functional.log_softmax(logits_XC, dim=1)
    terms_XC = random_signs(log_p_XC.shape, generator) * (log_p_XC.detach() / 2).exp() * log_p_XC
    return list(terms_XC.sum(0))


def random_signs(size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return numbers that are 1 or -1."""
    return torch.randint(0, 2, tuple(size), generator=generator) * 2 - 1


def read_rows(path: Path, labels: Sequence[str]) -> list[LabelledRow]:
    """Return the labelled rows of a JSON Lines, CSV, TSV or Parquet file.

    Args:
        path: the file; its suffix says the format.
        labels: the model's labels, in logit order. A row gives a name of these or an index into them.

    Raises:
        DataError: no such file, an unknown format, no rows, or a row that cannot be used (its line is named).
    """
    return [_checked(values, where, labels) for where, values in read_records(path)]


def encode_rows(rows: Sequence[LabelledRow], tokenizer: TextTokenizer, max_length: int = MAX_TOKENS) -> LabelledSet:
    """Return the rows as token ids, cut at ``max_length``, in their order."""
    texts = [row.text if row.text_pair is None else (row.text, row.text_pair) for row in rows]
    sequences = tokenizer.encode(texts, max_length=max_length)
    return labelled_set(sequences, torch.tensor([row.label for row in rows]), Head.LABEL)


def label_index(label: Any, where: str, labels: Sequence[str]) -> int:
    """Return the index of a label that is given by name or number.

    Raises:
        DataError: the model does not know it.
    """
    if isinstance(label, str) and label in labels:
        return labels.index(label)
    written = isinstance(label, str) and label.isascii() and label.isdigit() and len(label) <= MAX_DIGITS
    number = int(label) if written else label
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(labels):
        return number
    raise DataError(
        f"{where}: the model does not know the label {reprlib.repr(label)}; it knows {', '.join(map(repr, labels))} "
        f"or their numbers 0 to {len(labels) - 1}"
    )


def _checked(values: Mapping[str, Any], where: str, labels: Sequence[str]) -> LabelledRow:
    require_kind(values, where, Head.LABEL)
    text, pair = texts_of(values, where, "label")
    if values.get("label") is None or values["label"] == "":
        raise DataError(f"{where}: no label; each row needs a non-empty 'text' and a 'label'")
    return LabelledRow(text, pair, label_index(values["label"], where, labels))
