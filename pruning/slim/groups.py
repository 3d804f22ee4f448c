"""Neighbouring sequences of like length, which attention handles in one call.

Everything else of a layer sees real tokens only. Attention needs rectangles. Where many sequences share a length they
are one; where lengths differ, the shorter sequences of a group are filled up to the longest, and no query looks
at what is filled in: that costs less than one call for every length.

Letters: B sequences of the group, S slots of each (the longest length), Z = B * S, T tokens of
the group.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

SLACK_SLOTS = 8
SLACK_SHARE = 0.25
"""A sequence joins a group whose longest and shortest differ by at most this share of the longest, or that many slots,
whichever is more."""
RUN_TOKENS = 128
"""Tokens of neighbours of one length from which a call for them alone costs less than filling others up to them."""


@dataclass(frozen=True, slots=True)
class Filling:
    """How tokens lie in the rectangle of a group whose lengths differ."""

    source_Z: Tensor
    """Token that each slot reads; slots without one read their sequence's first."""
    kept_BS: Tensor
    """True where a slot has a token."""
    slot_T: Tensor
    """Slot of each token."""


@dataclass(frozen=True, slots=True)
class Group:
    """B neighbouring sequences."""

    start: int
    """First token of the group, in the batch."""
    stop: int
    """One past its last token."""
    count: int
    """B."""
    length: int
    """S."""
    filling: Filling | None
    """None where all are of one length."""

    def to(self, device: torch.device | str) -> Self:
        """Return the group with its tensors on ``device``."""
        if self.filling is None:
            return self
        parts = (self.filling.source_Z, self.filling.kept_BS, self.filling.slot_T)
        return replace(self, filling=Filling(*(part.to(device) for part in parts)))


def group_lengths(lengths: Sequence[int]) -> Iterator[Group]:
    """Split a batch of sequences of these lengths, in their order, into groups of neighbours."""
    start = 0
    for members in itertools.chain.from_iterable(map(_apart_from_long_runs, _alike(lengths))):
        stop = start + sum(members)
        filling = None if min(members) == max(members) else _filling(members)
        yield Group(start, stop, len(members), max(members), filling)
        start = stop


def _apart_from_long_runs(lengths: Sequence[int]) -> Iterator[Sequence[int]]:
    """Split off the runs of one length that deserve a call of their own."""
    others: list[int] = []
    for length, run in itertools.groupby(lengths):
        members = list(run)
        if length * len(members) < RUN_TOKENS:
            others += members
            continue
        if others:
            yield others
        yield members
        others = []
    if others:
        yield others


def _alike(lengths: Sequence[int]) -> Iterator[Sequence[int]]:
    """Split into neighbours of like length."""
    first = 0
    shortest = longest = lengths[0]
    for index, length in enumerate(lengths):
        shortest, longest = min(shortest, length), max(longest, length)
        if longest - shortest > max(SLACK_SLOTS, SLACK_SHARE * longest):
            yield lengths[first:index]
            first, shortest, longest = index, length, length
    yield lengths[first:]


def _filling(lengths: Sequence[int]) -> Filling:
    lengths_B = np.array(lengths)
    slots_S = np.arange(lengths_B.max())
    kept_BS = slots_S < lengths_B[:, None]
    first_B = np.cumsum(lengths_B) - lengths_B
    source_BS = first_B[:, None] + np.where(kept_BS, slots_S, 0)
    return Filling(
        torch.from_numpy(source_BS.ravel()), torch.from_numpy(kept_BS), torch.from_numpy(np.flatnonzero(kept_BS))
    )
