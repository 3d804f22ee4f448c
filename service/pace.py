"""How a build gives way: idle priority keeps it off a busy processor, and this keeps it from coming back at once.

A process of idle priority still runs in every gap that others leave, if only for microseconds, and leaves them cold
caches. Whoever was kept waiting therefore stays away for a while, and goes on with one thread: threads that share a
batch wait for each other, and of two at idle priority one is always kept off.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import torch

KEPT_WAITING = 0.2
"""Share of a batch's time that its threads were ready and others had the processor, from which the machine is busy."""
STILL_WAITING = 0.02
"""The same once it was busy: one thread finds gaps where two do not, and those who made it wait are still there."""
LONGEST_S = 0.5

TASKS = Path("/proc/self/task")


class Pace:
    """A ``Breath`` that stays away as long as the batch took, if others needed the processor meanwhile.

    As long as they do it computes with a single thread. Use it as a context: in the end torch has all its threads.
    """

    def __init__(
        self,
        threads: int,
        *,
        wall: Callable[[], float] = time.perf_counter,
        waited: Callable[[], float] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        compute_with: Callable[[int], None] = torch.set_num_threads,
    ) -> None:
        """Begin to measure; ``threads`` is how many a batch is computed with. The rest is for tests."""
        self._usual = self._threads = threads
        self._wall, self._waited, self._sleep = wall, waited or seconds_waited, sleep
        self._compute_with = compute_with
        self._is_busy = False
        self._since = (self._wall(), self._waited())

    def __enter__(self) -> Self:
        """Go on as begun."""
        return self

    def __exit__(self, *_: object) -> None:
        """Compute with all threads again."""
        self.use_all()

    def use_all(self) -> None:
        """Compute with all threads, until it is kept waiting once more."""
        self._use(self._usual)

    def __call__(self) -> None:
        """Wait, or go on at once."""
        took_s = self._wall() - self._since[0]
        waited_s = (self._waited() - self._since[1]) / self._threads
        self._is_busy = waited_s > (STILL_WAITING if self._is_busy else KEPT_WAITING) * took_s
        self._use(1 if self._is_busy else self._usual)
        if self._is_busy:
            self._sleep(min(took_s, LONGEST_S))
        self._since = (self._wall(), self._waited())

    def _use(self, threads: int) -> None:
        if threads != self._threads:
            self._threads = threads
            self._compute_with(threads)


def seconds_waited() -> float:
    """Return how long the threads of this process have been ready to run and not running: 0 where Linux cannot tell."""
    total_ns = 0
    for task in TASKS.glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):  # the thread has ended
            total_ns += int(task.read_text().split()[1])
    return total_ns / 1e9
