"""The rows that are trained on, those that are held out, and the batch of every step.

Everything here is a function of rows, seed and step: a run that is resumed needs no state of a random generator.
"""

import random
from collections.abc import Sequence

from pruning.data import LabelledSet
from pruning.errors import DataError

HELD_OUT_SHARE = 0.1
"""Most of the rows that may be held out."""
FEWEST_ROWS = 20
WINDOW_BATCHES = 50
"""Batches whose rows are sorted by length together: rows of like length share a batch, and batches are shuffled."""


def others_than(judges: LabelledSet, rows: LabelledSet) -> list[int]:
    """Return the indices of the rows whose texts are none of ``judges``, which must not train what they judge."""
    known = {(tuple(sequence.ids), tuple(sequence.type_ids)) for sequence in judges.sequences}
    texts = ((tuple(sequence.ids), tuple(sequence.type_ids)) for sequence in rows.sequences)
    return [index for index, text in enumerate(texts) if text not in known]


def split(rows: Sequence[int], held_out_rows: int, seed: int) -> tuple[list[int], list[int]]:
    """Return (rows trained on, rows held out): disjoint, all of ``rows`` together, drawn with ``seed``.

    Raises:
        DataError: too few rows.
    """
    if len(rows) < FEWEST_ROWS:
        raise DataError(
            f"{len(rows)} rows to train on are too few, those that also judge the model left out; "
            f"give at least {FEWEST_ROWS}"
        )
    order = random.Random(f"held out {seed}").sample(rows, len(rows))
    count = max(1, min(held_out_rows, int(HELD_OUT_SHARE * len(rows))))
    return sorted(order[count:]), sorted(order[:count])


class Batches:
    """Endless epochs of shuffled batches, each addressed by its step."""

    def __init__(self, lengths: Sequence[int], batch_rows: int, seed: int) -> None:
        """Take the rows' lengths in tokens."""
        self._lengths = lengths
        self._batch_rows = batch_rows
        self._seed = seed
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    @property
    def per_epoch(self) -> int:
        """Batches in which every row is seen once."""
        return -(-len(self._lengths) // self._batch_rows)

    def at(self, step: int, rank: int = 0, world: int = 1) -> list[int]:
        """Return the rows of a step, counted from 0; of several workers, those of number ``rank`` of ``world``.

        A batch of fewer rows than workers is every worker's: none is idle, and the weights of means are what they are.
        """
        epoch, number = divmod(step, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._shuffled(epoch))
        rows = self._epoch[1][number]
        return rows[rank::world] if len(rows) >= world else rows

    def _shuffled(self, epoch: int) -> list[list[int]]:
        generator = random.Random(f"epoch {epoch} of {self._seed}")
        order = generator.sample(range(len(self._lengths)), len(self._lengths))
        window = WINDOW_BATCHES * self._batch_rows
        batches = []
        for start in range(0, len(order), window):
            alike = sorted(order[start : start + window], key=lambda index: self._lengths[index])
            batches += [alike[first : first + self._batch_rows] for first in range(0, len(alike), self._batch_rows)]
        generator.shuffle(batches)
        return batches
