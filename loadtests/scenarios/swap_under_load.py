"""``swap_under_load``: many swaps while an open loop sends on; nothing may fail and nothing may go back."""

import asyncio
import math
from dataclasses import dataclass

from loadtests.admin import AdminClient, service_facts
from loadtests.errors import AdminError
from loadtests.laws import Goal, generation_never_goes_back, no_failed_request
from loadtests.machine import own_cpu_s
from loadtests.memory import resident_bytes
from loadtests.open_loop import run_open_loop
from loadtests.options import LoadOptions
from loadtests.phases import Window, seconds_of, split_by_windows, summarize
from loadtests.progress import say
from loadtests.records import Reply
from loadtests.result import Result, Table
from loadtests.swaps import (
    Kind,
    Swap,
    every_swap_commits,
    first_answers_s,
    perform,
    plan_swaps,
    swap_details,
    swap_table,
)

P99_RATIO_GOAL, MEMORY_GOAL = 1.5, 1.05
LEGEND = "Of all replicas together, each time while nothing but the ladder is held."
READINGS = 10
"""How often memory is read on the way; the first reading is the one that the last is held against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapOptions:
    """How to swap."""

    swaps: int = 200
    steady_s: float = 30.0
    """Length of the steady phase that the swap windows are compared with."""
    warm_up_s: float = 3.0
    pause_s: float = 0.5
    """Quiet time between the end of one swap and the next ``PUT``."""
    margin_s: float = 0.25
    """How long after its end a swap still counts as touching requests; not longer than the pause."""
    start: float = 0.0
    """Sparsity of the capacity probe and of the steady phase; dense is the slowest level."""
    max_sparsity: float = 0.99
    """Levels above it are left out."""
    new_share: float = 0.5
    """Share of the swaps that go to levels which have to be built first."""
    settle_s: float = 3.0
    """Time in which a service lets go of the levels that it no longer holds, before its memory is read."""
    max_seconds: float = 3600.0


async def run(options: LoadOptions, admin: AdminClient, swapping: SwapOptions) -> Result:
    """Hold a steady load at the start level, then swap under the same load, and judge every reply.

    What was committed before the run is committed again after it.
    """
    facts = {**options.facts(), **await service_facts(options.target)}
    levels = [level for level in await admin.ladder() if level <= swapping.max_sparsity]
    known = await admin.known_levels()
    steps = plan_swaps(
        levels, swapping.swaps, seed=options.seed, start=swapping.start, known=known, new_share=swapping.new_share
    )
    before = await admin.spec()
    await admin.dial(swapping.start)
    rate, rate_facts = await options.chosen_rate()
    cpu_s = own_cpu_s()
    async with options.pool() as pool, asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        load = group.create_task(
            run_open_loop(pool, options.bodies, options.load(rate, swapping.max_seconds), stop=stop)
        )
        say(f"steady for {swapping.steady_s:g} s at sparsity {swapping.start:g} ...")
        await asyncio.sleep(swapping.warm_up_s)
        steady = Window(start_s=pool.clock.now(), end_s=pool.clock.now() + swapping.steady_s)
        await asyncio.sleep(swapping.steady_s + swapping.pause_s)
        swaps, readings = [], []

        async def read_memory(following: float) -> float:
            await asyncio.sleep(swapping.pause_s)  # what came just before counts with the swap
            began_s = pool.clock.now()
            size = await _settled_memory(options, admin, levels, following, swapping.settle_s)
            readings.append(Window(start_s=began_s, end_s=pool.clock.now()))
            return size

        memory = {0: await read_memory(steps[0].sparsity)}
        async for swap in perform(admin, pool.clock, steps, pause_s=swapping.pause_s, load=load):
            swaps.append(swap)
            say(_told(swap, len(swaps), len(steps)))
            if len(swaps) % math.ceil(len(steps) / READINGS) == 0 or len(swaps) == len(steps):
                following = steps[len(swaps)].sparsity if len(swaps) < len(steps) else swapping.start
                memory[len(swaps)] = await read_memory(following)
        stop.set()
        replies = await load
        seconds = pool.clock.now()
    await admin.dial(**before)
    cpu_share = (own_cpu_s() - cpu_s) / seconds
    return _judge(
        replies,
        swaps,
        steady,
        readings,
        rate=rate,
        planned=len(steps),
        memory=memory,
        margin_s=min(swapping.margin_s, swapping.pause_s),
        facts={
            **facts,
            **rate_facts,
            "ladder": ", ".join(f"{level:g}" for level in levels),
            "steady level": f"{swapping.start:g}",
            "swap window": f"from PUT to {swapping.margin_s:g} s after its end; {swapping.pause_s:g} s between swaps",
            "generator CPU": f"{cpu_share:.0%} of one core",
        },
    )


async def _settled_memory(
    options: LoadOptions, admin: AdminClient, levels: list[float], following: float, settle_s: float
) -> float:
    """Return the service's memory while it holds nothing but its ladder: two levels of that are dialled before.

    The second is not the ``following`` one, so that the swap to that is a real one. NaN where they are refused.
    """
    last = next(level for level in levels if level != following)
    try:
        for level in (next(level for level in levels if level != last), last):
            await admin.dial(level)
    except AdminError as refusal:
        say(f"memory is not read: {refusal}")
        return math.nan
    await asyncio.sleep(settle_s)
    return await resident_bytes(options.target)


def _judge(
    replies: list[Reply],
    swaps: list[Swap],
    steady: Window,
    readings: list[Window],
    *,
    rate: float,
    planned: int,
    memory: dict[int, float],
    margin_s: float,
    facts: dict[str, str],
) -> Result:
    """Return laws, goals and figures of a finished run."""
    first_s = first_answers_s(swaps, replies)
    windows = [swap.window(margin_s) for swap in swaps]
    _, undisturbed = split_by_windows(replies, readings)
    timed = [reply for reply in undisturbed if reply.intended_s >= steady.start_s]
    inside, outside = split_by_windows(timed, windows)
    calm = [reply for reply in outside if reply.intended_s < steady.end_s]
    between = [reply for reply in outside if reply.intended_s >= steady.end_s]
    phases = [
        summarize("steady", calm, seconds=seconds_of([steady]), offered_rate=rate),
        summarize("swap windows", inside, seconds=seconds_of(windows)),
    ]
    for kind in Kind:
        of_kind = [swap.window(margin_s) for swap in swaps if swap.step.kind is kind]
        phases.append(
            summarize(f"swap windows, {kind}", split_by_windows(timed, of_kind)[0], seconds=seconds_of(of_kind))
        )
    within_s = windows[-1].end_s - steady.end_s if windows else 0.0
    aside = [reading for reading in readings if windows and reading.start_s < windows[-1].end_s]
    between_s = max(0.0, within_s - seconds_of(windows) - seconds_of(aside))
    phases.append(summarize("between swaps", between, seconds=between_s, offered_rate=rate))
    calm_p99, inside_p99, between_p99 = (phases[index].latency.quantile(0.99) for index in (0, 1, -1))
    ratio = inside_p99 / calm_p99
    return Result(
        scenario="swap_under_load",
        facts=facts,
        phases=tuple(phases),
        laws=(
            no_failed_request(replies),
            generation_never_goes_back(replies),
            every_swap_commits(swaps, planned),
        ),
        goals=(
            Goal(name="p99 in swap windows / steady p99", value=ratio, limit=P99_RATIO_GOAL),
            Goal(
                name="p99 in swap windows / between swaps (the same levels)",
                value=inside_p99 / between_p99,
                limit=P99_RATIO_GOAL,
            ),
            Goal(
                name="resident memory after all swaps / after a tenth of the swaps",
                value=memory[max(memory)] / memory.get(math.ceil(planned / READINGS), math.nan),
                limit=MEMORY_GOAL,
            ),
        ),
        tables=(swap_table(swaps, first_s), _memory_table(memory)),
        details={
            "p99_ratio": ratio,
            "swaps": swap_details(swaps, first_s),
            "resident_bytes": {str(swaps): None if math.isnan(size) else size for swaps, size in memory.items()},
        },
        replies={"requests": replies},
    )


def _memory_table(memory: dict[int, float]) -> Table:
    rows = tuple((str(swaps), f"{size / 2**20:.1f} MiB") for swaps, size in memory.items())
    return Table(title="Memory", header=("swaps done", "resident"), rows=rows, legend=LEGEND)


def _told(swap: Swap, number: int, planned: int) -> str:
    """Return one line of progress."""
    outcome = f"generation {swap.generation}" if swap.committed else swap.error
    took = swap.settled_s - swap.asked_s
    return f"swap {number}/{planned}: {swap.step.kind} {swap.step.sparsity:g} -> {outcome} in {took:.3f} s"
