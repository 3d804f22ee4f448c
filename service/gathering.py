"""Whether a batch should wait for those who were answered a moment ago: arithmetic alone, given the time.

A client that asks again when it has its answer is back within milliseconds. A batch that begins before that leaves it
out, and such clients fall into groups that take turns, in batches half as full as they could be. A wait pays only
where those who were answered do come back; where arrivals have nothing to do with answers, it soon ceases.
"""

from dataclasses import dataclass

LONGEST_S = 0.005
SHARE = 0.5
"""A wait is at most this share of the time that the answered batch took."""
BACK = 0.75
"""Share of the expected requests with which a wait has paid."""
MEMORY = 0.9
"""Weight of all waits before the last one."""
SELDOM = 16
"""Batches from one wait to the next where waits do not pay."""


@dataclass(slots=True)
class Gathering:
    """The requests that are expected back, until when, and how often such waits paid."""

    paid: float = 1.0
    """Share of the waits that paid, a moving average."""
    _expected: int = 0
    _missing: int = 0
    _until_s: float = 0.0
    _waits: bool = False
    _passed_over: int = 0

    def answered(self, requests: int, seconds: float, now_s: float) -> None:
        """Note that so many requests have their answers, after a batch of so many ``seconds``."""
        before = self._missing if now_s < self._until_s else 0
        self._expected = self._missing = before + requests
        self._until_s = now_s + min(LONGEST_S, SHARE * seconds)
        self._passed_over += 1
        self._waits = self.paid >= 0.5 or self._passed_over >= SELDOM

    def arrived(self) -> None:
        """Note that a request has come."""
        self._missing = max(0, self._missing - 1)

    def seconds_left(self, now_s: float) -> float:
        """Return how long a batch should still wait; 0: it should begin."""
        if not self._waits:
            return 0.0
        left_s = self._until_s - now_s if self._missing else 0.0
        if left_s > 0:
            return left_s
        self._waits, self._passed_over = False, 0
        has_paid = self._missing <= (1 - BACK) * self._expected
        self.paid = MEMORY * self.paid + (1 - MEMORY) * has_paid
        return 0.0
