"""``overload``: more than the service can answer, then less again; it must refuse the excess and nothing but that."""

import asyncio
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.admin import service_facts
from loadtests.client import LanePool
from loadtests.laws import Goal, answered_or_refused, generation_never_goes_back, refusals_say_when_to_come_back
from loadtests.machine import own_cpu_s
from loadtests.memory import resident_bytes
from loadtests.open_loop import run_open_loop
from loadtests.options import LoadOptions
from loadtests.phases import Window, summarize
from loadtests.progress import say
from loadtests.records import Reply
from loadtests.result import Result, Table

CONCURRENCIES = (16, 64, 256)
"""Clients of the capacity probe: a long queue makes full batches, which a few clients do not."""
FILLED = 1 / 3
"""Share of the overload after which the queue is full and memory has what it needs."""
LEGEND = (
    "*Refused* and *excess* (what is more than the capacity) are shares of the requests due from the first refusal to "
    "the end of the overload. It answers *as before* from the first second on in which nothing fails and the median "
    "latency is at most the p99 of the calm load. Memory is that of all replicas."
)
SHARE_LIMIT, RECOVERY_LIMIT_S, MEMORY_LIMIT = 0.1, 5.0, 1.05
LAG_LIMIT_S = 0.5
"""Where the generator sends later than this, it has a queue of its own, and the other goals judge that one too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverloadOptions:
    """How much, and for how long."""

    factor: float = 2.0
    """Offered rate, as a multiple of the capacity."""
    seconds: float = 60.0
    calm_s: float = 15.0
    """Length of the load at the usual share of the capacity before the overload."""
    recovery_s: float = 15.0
    """The same after it."""
    window_s: float = 1.0
    """Spans in which the recovery is looked for."""


async def run(options: LoadOptions, overloading: OverloadOptions) -> Result:
    """Send a share of the capacity, then a multiple of it, then the share again, without a break."""
    facts = {**options.facts(), **await service_facts(options.target)}
    capacity, capacity_facts = await _capacity(options)
    calm_rate, high_rate = capacity * options.share, capacity * overloading.factor
    cpu_s = own_cpu_s()
    async with options.pool() as pool:
        say(f"{calm_rate:.1f} requests/s for {overloading.calm_s:g} s ...")
        calm = await run_open_loop(pool, options.bodies, options.load(calm_rate, overloading.calm_s))
        before = await resident_bytes(options.target)
        say(f"{high_rate:.1f} requests/s for {overloading.seconds:g} s, then {calm_rate:.1f} again ...")
        high_s, end_s = pool.clock.now(), pool.clock.now() + overloading.seconds
        async with asyncio.TaskGroup() as group:
            high_load = group.create_task(
                run_open_loop(pool, options.bodies, options.load(high_rate, overloading.seconds))
            )
            filled_reading = group.create_task(_resident_at(options, pool, high_s + FILLED * overloading.seconds))
            last_reading = group.create_task(_resident_at(options, pool, end_s))
            after_load = group.create_task(
                run_open_loop(pool, options.bodies, options.load(calm_rate, overloading.recovery_s), start_s=end_s)
            )
        high, after = high_load.result(), after_load.result()
        seconds = pool.clock.now()
        memory = {
            "before": before,
            "queue full": filled_reading.result(),
            "end of the overload": last_reading.result(),
            "after": await resident_bytes(options.target),
        }
    return _judge(
        calm,
        high,
        after,
        capacity=capacity,
        share=options.share,
        overload=Window(start_s=high_s, end_s=end_s),
        overloading=overloading,
        memory=memory,
        facts={
            **facts,
            **capacity_facts,
            "rate": f"{calm_rate:.1f}, {high_rate:.1f} ({overloading.factor:g} x capacity), {calm_rate:.1f} requests/s",
            "generator CPU": f"{(own_cpu_s() - cpu_s) / seconds:.0%} of one core",
        },
    )


async def _capacity(options: LoadOptions) -> tuple[float, dict[str, str]]:
    if options.rate is not None:
        return options.rate, {"capacity": f"{options.rate:g} requests/s, given"}
    capacity, facts = await options.capacity(CONCURRENCIES)
    return capacity.rate, facts


async def _resident_at(options: LoadOptions, pool: LanePool, when_s: float) -> float:
    await asyncio.sleep(when_s - pool.clock.now())
    return await resident_bytes(options.target)


def _judge(
    calm: list[Reply],
    high: list[Reply],
    after: list[Reply],
    *,
    capacity: float,
    share: float,
    overload: Window,
    overloading: OverloadOptions,
    memory: dict[str, float],
    facts: dict[str, str],
) -> Result:
    """Return laws, goals and figures of a finished run."""
    replies = [*calm, *high, *after]
    calm_rate = capacity * share
    before = summarize("calm", calm, seconds=overloading.calm_s, offered_rate=calm_rate)
    during = summarize("overload", high, seconds=overloading.seconds, offered_rate=capacity * overloading.factor)
    later = summarize("after", after, seconds=overloading.recovery_s, offered_rate=calm_rate)
    refused, excess = refused_and_excess(high, overload, capacity)
    recovery_s = seconds_to_steady(after, overload.end_s, before.latency.quantile(0.99), overloading)
    off = abs(refused / excess - 1) if excess > 0 else math.nan
    growth = memory["end of the overload"] / memory["queue full"]
    figures = {
        "refused share": f"{refused:.1%}",
        "excess share": f"{excess:.1%}",
        "good answers under overload, of the capacity": f"{during.achieved_rate / capacity:.1%}",
        "seconds until it answers as before": f"{recovery_s:.1f}",
        **{f"resident memory, {when}": f"{size / 2**20:.1f} MiB" for when, size in memory.items()},
    }
    return Result(
        scenario="overload",
        facts=facts,
        phases=(before, during, later),
        laws=(
            answered_or_refused(replies),
            refusals_say_when_to_come_back(replies),
            generation_never_goes_back(reply for reply in replies if not reply.refused),
        ),
        goals=(
            Goal(name="refused share off the excess, relative", value=off, limit=SHARE_LIMIT),
            Goal(name="seconds until it answers as before", value=recovery_s, limit=RECOVERY_LIMIT_S),
            Goal(name="send lag p99 of the generator, s", value=during.lag.quantile(0.99), limit=LAG_LIMIT_S),
            Goal(name="memory at the end / once the queue is full", value=growth, limit=MEMORY_LIMIT),
        ),
        tables=(Table(title="Overload", header=("what", "figure"), rows=tuple(figures.items()), legend=LEGEND),),
        details={
            "refused_share": refused,
            "excess_share": excess,
            "recovery_s": None if math.isinf(recovery_s) else recovery_s,
            "resident_bytes": {when: None if math.isnan(size) else size for when, size in memory.items()},
        },
        replies={"requests": replies},
    )


def refused_and_excess(high: Sequence[Reply], overload: Window, capacity: float) -> tuple[float, float]:
    """Return the share of requests that was refused, and the share that is more than ``capacity`` answers a second.

    Both are of those due between the first refusal, when the queue was full, and the end of the overload. Where
    nothing was refused, the first is 0 and the second is of the whole overload.
    """
    full_s = min((reply.intended_s for reply in high if reply.refused), default=overload.start_s)
    due = [reply for reply in high if reply.intended_s >= full_s]
    refused = sum(reply.refused for reply in due)
    return refused / max(1, len(due)), 1 - capacity * (overload.end_s - full_s) / max(1, len(due))


def seconds_to_steady(after: Sequence[Reply], end_s: float, calm_p99_s: float, overloading: OverloadOptions) -> float:
    """Return the seconds from the end of the overload to the first span in which it answers as before.

    That is one without a failed request, whose median latency is at most the p99 from before. Infinite if there is
    none.
    """
    for number in range(math.ceil(overloading.recovery_s / overloading.window_s)):
        start_s = end_s + number * overloading.window_s
        span = [reply for reply in after if start_s <= reply.intended_s < start_s + overloading.window_s]
        calm = span and not any(reply.failed for reply in span)
        if calm and statistics.median(reply.latency_s for reply in span) <= calm_p99_s:
            return start_s - end_s
    return math.inf
