"""The open-loop generator: requests leave when the arrival process says so, whether or not earlier ones came back.

A closed loop waits for a slow server and so forgets the requests that would have queued behind it. Here every latency
runs from the intended send time, and a stall of half a second shows in all the requests that were due in it.
"""

import asyncio
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from loadtests.client import LanePool
from loadtests.records import Reply

MAX_REQUESTS = 2_000_000


class Arrivals(StrEnum):
    """How requests are spaced."""

    POISSON = "poisson"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One open-loop load: bounded in time and in count."""

    rate: float
    """Requests per second."""
    duration_s: float
    arrivals: Arrivals = Arrivals.POISSON
    seed: int = 0
    max_requests: int = MAX_REQUESTS

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless rate, duration and count are positive."""
        if not (self.rate > 0 and self.duration_s > 0 and self.max_requests > 0):
            raise ValueError(f"rate, duration and count must be positive; got {self}")

    def times_s(self) -> Iterator[float]:
        """Yield the intended send times in seconds from the start; the same seed gives the same times."""
        draw = random.Random(self.seed)
        now_s = 0.0
        for _ in range(self.max_requests):
            now_s += draw.expovariate(self.rate) if self.arrivals is Arrivals.POISSON else 1.0 / self.rate
            if now_s > self.duration_s:
                return
            yield now_s


async def run_open_loop(
    pool: LanePool,
    bodies: Sequence[bytes],
    load: Load,
    *,
    start_s: float | None = None,
    stop: asyncio.Event | None = None,
) -> list[Reply]:
    """Send the load and return every reply in order of intended time, once the last is there.

    Bodies are taken in turn. The load begins at ``start_s`` of the pool's clock, by default now. ``stop`` ends it
    early; requests already due are still answered.
    """
    replies: list[Reply] = []

    async def send(index: int, intended_s: float) -> None:
        replies.append(await pool.send(index, intended_s, bodies[index % len(bodies)]))

    start_s = pool.clock.now() if start_s is None else start_s
    async with asyncio.TaskGroup() as requests:
        for index, offset_s in zip(itertools.count(), load.times_s(), strict=False):
            # Even when late, give way to the requests in flight.
            await asyncio.sleep(max(0.0, start_s + offset_s - pool.clock.now()))
            if stop is not None and stop.is_set():
                break
            requests.create_task(send(index, start_s + offset_s))
    return sorted(replies, key=lambda reply: reply.intended_s)
