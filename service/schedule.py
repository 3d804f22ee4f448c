"""Which lane takes the next batch, and how large it may be: arithmetic alone, without clock, thread or event loop.

Little work is done soonest by all cores together. Where there is a request for every core, and enough work, one core
each gives more answers a second: cores that compute one batch together wait for the slowest of them after every
operation, and share their time with the event loop and whatever else runs (``python scripts/measure_lanes.py``).
"""

from dataclasses import dataclass
from enum import StrEnum


class Lane(StrEnum):
    """Where a batch is computed."""

    WIDE = "wide"
    """On all cores: while it runs, nothing else does."""
    NARROW = "narrow"
    """On one core, beside as many others as there are cores."""


WORTH_A_CORE = 128
"""Tokens that must wait for each core before they are shared out: about five short texts."""


@dataclass(slots=True)
class Schedule:
    """What runs, and what may run next. Any request may run on any lane, so none waits for a lane of its own."""

    narrow_lanes: int
    """How many batches may run side by side; 0 where all run on the wide lane."""
    worth_a_core: int = WORTH_A_CORE
    running: int = 0
    """Batches that run."""
    running_tokens: int = 0
    """Their tokens."""
    wide: bool = False
    """Whether the one that runs is on the wide lane."""

    @property
    def enough_tokens(self) -> int:
        """Waiting tokens with which a batch is worth its while."""
        return max(1, self.narrow_lanes) * self.worth_a_core

    def next_lane(self, waiting: int, waiting_tokens: int) -> Lane | None:
        """Return the lane that may take a batch now, where ``waiting`` requests wait; None if all are taken.

        Where something waits, that is never because a core is idle.
        """
        if self.wide or waiting == 0:
            return None
        if self.running == 0:
            enough = waiting >= self.narrow_lanes and waiting_tokens >= self.narrow_lanes * self.worth_a_core
            return Lane.NARROW if self.narrow_lanes and enough else Lane.WIDE
        return Lane.NARROW if self.running < self.narrow_lanes else None

    def budget(self, lane: Lane, waiting_tokens: int, most: int) -> int:
        """Return the tokens, up to ``most``, that a batch on ``lane`` may have; a single request may have more.

        A narrow lane takes its share of all that waits and runs, so that no other is left without work.
        """
        if lane is Lane.WIDE:
            return most
        share = -(-(waiting_tokens + self.running_tokens) // self.narrow_lanes)
        return min(share, most)

    def share(self, lane: Lane) -> float:
        """Return the share of all lanes that a batch on ``lane`` keeps busy."""
        return 1.0 if lane is Lane.WIDE else 1 / self.narrow_lanes

    def begin(self, lane: Lane, tokens: int) -> None:
        """Note that a batch runs."""
        self.running += 1
        self.running_tokens += tokens
        self.wide = lane is Lane.WIDE

    def end(self, lane: Lane, tokens: int) -> None:
        """Note that it is done."""
        self.running -= 1
        self.running_tokens -= tokens
        if lane is Lane.WIDE:
            self.wide = False
