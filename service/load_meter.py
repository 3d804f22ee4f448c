"""A replica's own reading of its load: a few additions per request, percentiles only when somebody asks."""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from service.load import Load

WINDOW_S = 2.0
"""Seconds over which percentiles are taken."""
MOST_KEPT = 8192
"""Answers of which the window is made at most, the latest ones."""


@dataclass(slots=True)
class RecentTimes:
    """How long the answers of the last seconds took."""

    times: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=MOST_KEPT))
    """When, and the seconds it took."""

    def add(self, now_s: float, seconds: float) -> None:
        """Count one answer."""
        self.times.append((now_s, seconds))

    def p99_s(self, now_s: float) -> float | None:
        """Return the 99th percentile (nearest rank) of the last ``WINDOW_S`` seconds; None without any answer."""
        while self.times and self.times[0][0] < now_s - WINDOW_S:
            self.times.popleft()
        ordered = sorted(seconds for _, seconds in self.times)
        return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else None


class LoadMeter:
    """Counts what one replica gets and does. Everything is called on its event loop's thread."""

    def __init__(
        self,
        *,
        on_gpu: bool = False,
        monotonic: Callable[[], float] = time.perf_counter,
        process_s: Callable[[], float] = time.process_time,
        loop_s: Callable[[], float] = time.thread_time,
    ) -> None:
        """Begin to count.

        Args:
            on_gpu: whether batches take a GPU's time and not the processor's.
            monotonic: the time; this and the others are given by tests.
            process_s: processor seconds of all threads so far.
            loop_s: those of the calling thread.
        """
        self._on_gpu = on_gpu
        self._monotonic = monotonic
        self._process_s = process_s
        self._loop_s = loop_s
        self._refused = 0
        self._accepted = 0
        self._accepted_tokens = 0
        self._answered_tokens = 0
        self._running = 0.0
        """Share of the lanes that is busy now."""
        self._busy_s = 0.0
        self._since_s = monotonic()
        """Until when ``_busy_s`` is counted."""
        self._totals = RecentTimes()
        self._models = RecentTimes()

    def refused(self) -> None:
        """Count a request for which there was no room."""
        self._refused += 1

    def accepted(self, tokens: int) -> None:
        """Count a request that was let into the queue."""
        self._accepted += 1
        self._accepted_tokens += tokens

    def began(self, share: float) -> None:
        """Count a batch that begins on ``share`` of the lanes."""
        self._advance()
        self._running += share

    def ended(self, share: float) -> None:
        """Count that it is over, well or not."""
        self._advance()
        self._running -= share

    def ran(self, tokens: int) -> None:
        """Count the tokens of a batch that has its answers."""
        self._answered_tokens += tokens

    def computed(self, seconds: float) -> None:
        """Count a request's time in the queue and in the model."""
        self._models.add(self._monotonic(), seconds)

    def answered(self, seconds: float) -> None:
        """Count the time of a good answer, from the arrival of its request to its end."""
        self._totals.add(self._monotonic(), seconds)

    def load(self, *, queue_tokens: int, queue_s: float) -> Load:
        """Return the reading of this moment, with what waits and the seconds that it needs."""
        self._advance()
        now_s, loop_s = self._since_s, self._loop_s()
        return Load(
            at_s=now_s,
            refused=self._refused,
            accepted=self._accepted,
            accepted_tokens=self._accepted_tokens,
            answered_tokens=self._answered_tokens,
            busy_s=self._busy_s,
            model_s=self._busy_s if self._on_gpu else self._process_s() - loop_s,
            loop_s=loop_s,
            queue_tokens=queue_tokens,
            queue_s=queue_s,
            p99_s=self._totals.p99_s(now_s),
            model_p99_s=self._models.p99_s(now_s),
        )

    def _advance(self) -> None:
        now_s = self._monotonic()
        self._busy_s += self._running * (now_s - self._since_s)
        self._since_s = now_s
