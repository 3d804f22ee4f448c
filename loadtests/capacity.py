"""A short closed loop that finds what the service can answer at most; good for a rate, not for a latency."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.client import LanePool
from loadtests.errors import LoadTestError
from loadtests.records import Reply
from loadtests.target import Target

CONCURRENCIES = (4, 16, 48)
WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What the probe found."""

    rate: float
    """Answers per second at the best concurrency."""
    concurrency: int
    rates: dict[int, float]
    """Answers per second by concurrency."""


async def closed_loop(pool: LanePool, bodies: Sequence[bytes], *, clients: int, seconds: float) -> list[Reply]:
    """Return the replies to ``clients`` loops that each send, wait and send again for ``seconds``."""
    replies: list[Reply] = []
    end_s = pool.clock.now() + seconds

    async def client(number: int) -> None:
        index = number
        while (now_s := pool.clock.now()) < end_s:
            replies.append(await pool.send(index, now_s, bodies[index % len(bodies)]))
            index += clients

    async with asyncio.TaskGroup() as loops:
        for number in range(clients):
            loops.create_task(client(number))
    return replies


async def probe_capacity(
    target: Target, bodies: Sequence[bytes], *, seconds: float = 3.0, concurrencies: Sequence[int] = CONCURRENCIES
) -> Capacity:
    """Return the best rate of good answers over ``concurrencies``, each probed for ``seconds`` after one warm-up.

    Raises:
        LoadTestError: no request was answered with 200.
    """
    rates: dict[int, float] = {}
    async with LanePool(target, size=max(concurrencies)) as pool:
        await closed_loop(pool, bodies, clients=concurrencies[0], seconds=WARM_UP_S)
        for clients in concurrencies:
            start_s = pool.clock.now()
            replies = await closed_loop(pool, bodies, clients=clients, seconds=seconds)
            rates[clients] = sum(not reply.failed for reply in replies) / (pool.clock.now() - start_s)
            if not rates[clients]:
                seen = sorted({f"{reply.status} {reply.error or ''}".strip() for reply in replies})
                raise LoadTestError(f"{target.endpoint} answered no request with 200; seen: {', '.join(seen)}")
    best = max(rates, key=lambda clients: rates[clients])
    return Capacity(rate=rates[best], concurrency=best, rates=rates)
