"""The threads that compute batches: one with all cores, and one for each core."""

import functools
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from service.compute_threads import compute_alone, compute_on
from service.schedule import Lane


@dataclass(frozen=True, slots=True)
class Lanes:
    """Executors by lane. Their number of cores never changes: to change it costs more than a batch."""

    wide: Executor
    """Runs one batch at a time."""
    narrow: Executor | None = None
    """Runs as many as there are narrow lanes; None where there are none."""
    narrow_lanes: int = 0

    @classmethod
    def start(cls, cores: int, *, side_by_side: bool) -> Self:
        """Return threads of our own; ``close`` ends them.

        Args:
            cores: how many the wide lane computes on.
            side_by_side: whether as many narrow lanes are worth having; a GPU computes one batch after the other.
        """
        wide = ThreadPoolExecutor(1, "engine-wide", functools.partial(compute_on, cores))
        if cores == 1 or not side_by_side:
            return cls(wide)
        return cls(wide, ThreadPoolExecutor(cores, "engine-narrow", compute_alone), cores)

    def executor(self, lane: Lane) -> Executor:
        """Return where batches of ``lane`` run; ``Lane.NARROW`` only if there are any."""
        if lane is Lane.WIDE:
            return self.wide
        assert self.narrow is not None
        return self.narrow

    def close(self) -> None:
        """Wait for what runs, and end the threads."""
        self.wide.shutdown()
        if self.narrow is not None:
            self.narrow.shutdown()
