"""Neighbouring sequences of like length, which attention handles in one call.

Everything else of a layer sees real tokens only. Attention needs rectangles. Where many sequences share a length they
are one; where lengths differ, the shorter sequences of a group are filled up to the longest, and what is filled in is
hidden from every query: that costs less than one call for every length.

Letters: B sequences of the group, S slots of each (the longest length), T tokens of the group.
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
"""Tokens of one length from which a call of their own is cheaper than filling others up to them."""


@dataclass(frozen=True, slots=True)
class Filling:
    """How tokens lie in the rectangle of a group whose lengths differ."""

    source_S: Tensor
    """Token that each of the B * S slots reads; slots without one read their sequence's first."""
    hidden_BS: Tensor
    """Slots without a token."""
    slot_T: Tensor
    """Slot of each token."""


@dataclass(frozen=True, slots=True)
class Group:
    """B neighbouring sequences."""

    start: int
    """First token of the group, in the batch."""
    stop: int
    """One past its last token."""
    first: int
    """First sequence of the group, in the batch."""
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
        parts = (self.filling.source_S, self.filling.hidden_BS, self.filling.slot_T)
        return replace(self, filling=Filling(*(part.to(device) for part in parts)))


def group_lengths(lengths: Sequence[int]) -> Iterator[Group]:
    """Split a batch of sequences of these lengths, in their order, into groups of neighbours."""
    first = start = 0
    for members in _alike(lengths):
        runs = [list(run) for _, run in itertools.groupby(members)]
        filled = len(runs) > 1 and sum(members) < RUN_TOKENS * len(runs)
        for part in [members] if filled else runs:
            stop = start + sum(part)
            yield Group(start, stop, first, len(part), max(part), _filling(part) if filled else None)
            first, start = first + len(part), stop


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
    hidden_BS = slots_S >= lengths_B[:, None]
    first_B = np.cumsum(lengths_B) - lengths_B
    source_BS = first_B[:, None] + np.where(hidden_BS, 0, slots_S)
    return Filling(
        torch.from_numpy(source_BS.ravel()),
        torch.from_numpy(hidden_BS),
        torch.from_numpy(np.flatnonzero(~hidden_BS)),
    )
