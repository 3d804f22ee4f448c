"""Labelled rows, encoded and hashed: what scores a model and judges its cuts. ``pruning.tasks`` makes them of files."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pruning.heads import Head
from pruning.tokenization import Encoded

IGNORED = -100
"""Label of what takes no part in the loss, as torch's losses have it."""
NAMED_ROWS = 10
"""Most rows that a message names."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """A sentence as its metric needs it."""

    tags: tuple[int, ...]
    """Label of each word."""
    tokens: tuple[int, ...]
    """Index of each word's first token in the sequence; -1 where no token stands for the word."""

    @property
    def identity(self) -> list[object]:
        """What a digest must tell apart."""
        return [self.tags, self.tokens]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as its metric needs it."""

    context: str
    spans: tuple[tuple[int, int], ...]
    """First character of the context that each of its tokens stands for, and one past the last."""
    first: int
    """Index of the context's first token in the sequence."""
    answers: tuple[str, ...]
    """All that are right."""

    @property
    def identity(self) -> list[object]:
        """What a digest must tell apart; where tokens stand follows from the context and their ids."""
        return [self.context, self.answers]


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Encoded rows in a fixed order."""

    sequences: tuple[Encoded, ...]
    labels: Tensor
    """What the loss compares with: index of the label [n]; number [n]; label of each token, ``IGNORED`` after the last
    and where none is asked for [n, longest]; first and last token of the answer, ``IGNORED`` where it is cut off
    [n, 2]."""
    digest: str
    """Of token ids, token types, labels, truths and their order."""
    head: Head = Head.LABEL
    """What the rows are for."""
    truths: tuple[Tagged | Asked, ...] = ()
    """What the metric compares with, row by row, where the labels do not say it all."""
    names: tuple[str, ...] = ()
    """Names of the labels, where the metric reads them."""
    numbers: tuple[int, ...] = ()
    """Which rows of their file these are, counted from 1; empty where they are all of it, in its order."""

    def __len__(self) -> int:
        """Return n."""
        return len(self.sequences)

    def subset(self, indices: Sequence[int]) -> "LabelledSet":
        """Return the rows at ``indices``, in that order."""
        chosen = replace(
            self,
            sequences=tuple(self.sequences[index] for index in indices),
            labels=self.labels[torch.tensor(indices, dtype=torch.long)],
            truths=tuple(self.truths[index] for index in indices) if self.truths else (),
            numbers=self._numbers_of(indices),
        )
        return replace(chosen, digest=_digest(chosen))

    def named(self, indices: Sequence[int]) -> str:
        """Return the rows at ``indices`` as a message names them, by their numbers in the file."""
        return f"training row{'s' if len(indices) > 1 else ''} {listed(self._numbers_of(indices))}, counted from 1,"

    def _numbers_of(self, indices: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.numbers[index] if self.numbers else index + 1 for index in indices)


def listed(numbers: Sequence[int]) -> str:
    """Return the numbers of rows for a message; of many the first."""
    return ", ".join(map(str, numbers[:NAMED_ROWS])) + (", ..." if len(numbers) > NAMED_ROWS else "")


def labelled_set(
    sequences: Sequence[Encoded],
    labels: Tensor,
    head: Head,
    truths: Sequence[Tagged | Asked] = (),
    names: Sequence[str] = (),
) -> LabelledSet:
    """Return the rows as a set with its digest."""
    rows = LabelledSet(tuple(sequences), labels, "", head, tuple(truths), tuple(names))
    return replace(rows, digest=_digest(rows))


def calibration_sample(rows: LabelledSet, size: int, seed: int) -> LabelledSet:
    """Return at most ``size`` rows drawn without replacement, shortest first.

    The same rows, size and seed always give the same set in the same order, hence the same digest.
    """
    chosen = random.Random(seed).sample(range(len(rows)), min(size, len(rows)))
    return rows.subset(sorted(chosen, key=lambda index: (len(rows.sequences[index].ids), index)))


def rows_apart(rows: LabelledSet, size: int, seed: int, most: int) -> LabelledSet:
    """Return at most ``most`` of the rows that ``calibration_sample`` leaves out, shortest first; likewise the same."""
    drawn = set(random.Random(seed).sample(range(len(rows)), min(size, len(rows))))
    left = [index for index in range(len(rows)) if index not in drawn]
    chosen = random.Random(seed).sample(left, min(most, len(left)))
    return rows.subset(sorted(chosen, key=lambda index: (len(rows.sequences[index].ids), index)))


def _digest(rows: LabelledSet) -> str:
    digest = hashlib.sha256()
    labels = rows.labels.tolist()
    for index, sequence in enumerate(rows.sequences):
        label = labels[index][: len(sequence.ids)] if rows.head is Head.TAGS else labels[index]
        row = [list(sequence.ids), list(sequence.type_ids), label]
        digest.update(json.dumps(row + [truth.identity for truth in rows.truths[index : index + 1]]).encode())
    return digest.hexdigest()
