"""``chaos``: one process of the service after another is killed in mid-change, while an open loop sends on."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from loadtests.admin import AdminClient, service_facts
from loadtests.errors import AdminError, LoadTestError
from loadtests.kills import (
    Kill,
    Reaper,
    all_came_back,
    cost_of,
    kill_details,
    kill_table,
    nothing_durable_is_lost,
    quiet_between,
    what_answers_nothing_costs_nothing,
)
from loadtests.laws import Goal, generation_never_goes_back
from loadtests.open_loop import run_open_loop
from loadtests.options import LoadOptions
from loadtests.phases import seconds_of, split_by_windows, summarize
from loadtests.processes import Part, require_parts
from loadtests.progress import say
from loadtests.records import Reply
from loadtests.result import Result
from loadtests.swaps import Kind, Step, plan_swaps
from loadtests.timeline import draw_timeline

WITHIN_S = {Kind.LADDER: 0.1, Kind.NEW: 1.0}
"""Seconds after the ``PUT`` within which the process is killed: about as long as such a change takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosOptions:
    """What to kill, and how patiently."""

    pid: int
    """The ``sparsedial serve`` of the service under test, on this machine."""
    parts: tuple[Part, ...] = tuple(Part)
    rounds: int = 3
    """How often each part."""
    steady_s: float = 10.0
    """Length of the load before the first kill."""
    pause_s: float = 3.0
    """Quiet time between everything being back and the next change."""
    limit_s: float = 120.0
    """How long everything may take to come back."""
    max_seconds: float = 3600.0


async def run(options: LoadOptions, admin: AdminClient, chaos: ChaosOptions) -> Result:
    """Hold a load; in every round, for every part, ask for another level and kill a process of it meanwhile.

    What was committed before the run is committed again after it.

    Raises:
        LoadTestError: a part has no process, or there are too few levels.
    """
    require_parts(chaos.pid, chaos.parts)
    facts = {**options.facts(), **await service_facts(options.target)}
    before = await admin.spec()
    plan = _plan(await admin.ladder(), await admin.known_levels(), chaos, options.seed, float(before["sparsity"]))
    rate, rate_facts = await options.chosen_rate()
    kills: list[Kill] = []
    async with options.pool() as pool, asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        load = group.create_task(run_open_loop(pool, options.bodies, options.load(rate, chaos.max_seconds), stop=stop))
        reaper = Reaper(
            pid=chaos.pid, admin=admin, clock=pool.clock, draw=random.Random(options.seed), limit_s=chaos.limit_s
        )
        await asyncio.sleep(chaos.steady_s)
        for part, step in plan:
            if load.done():
                break
            try:
                kills.append(await reaper.kill(part, step, within_s=WITHIN_S[step.kind]))
            except LoadTestError as error:  # what did not come back cannot be killed again
                say(f"no more kills: {error}")
                break
            say(_told(kills[-1], len(kills), len(plan)))
            await asyncio.sleep(chaos.pause_s)
        stop.set()
        replies = await load
    return _judge(
        replies,
        kills,
        rate=rate,
        planned=len(plan),
        facts={
            **facts,
            **rate_facts,
            "killed": f"{', '.join(chaos.parts)}, {chaos.rounds} times each, in mid-change",
            "afterwards": await _put_back(admin, before),
        },
    )


async def _put_back(admin: AdminClient, spec: dict[str, Any]) -> str:
    """Commit what was committed before the run; return how that went, which is no reason to lose the report."""
    try:
        operation = await admin.dial(**spec)
    except AdminError as error:
        return str(error)
    return f"sparsity {spec['sparsity']:g} {operation.phase}"


def _plan(
    levels: Sequence[float], known: set[float], chaos: ChaosOptions, seed: int, start: float
) -> list[tuple[Part, Step]]:
    """Return what to kill at which change: the builder while it builds a new level, every other part at either kind."""
    count = len(chaos.parts) * chaos.rounds
    fresh = [step for step in plan_swaps(levels, 2 * count, seed=seed, known=known) if step.kind is Kind.NEW]
    draw, level, plan = random.Random(seed), start, []
    for number in range(count):
        part = chaos.parts[number % len(chaos.parts)]
        step = fresh.pop()
        if part is not Part.BUILDER and (number // len(chaos.parts)) % 2 == 0:
            step = Step(sparsity=draw.choice([one for one in levels if one != level]), kind=Kind.LADDER)
        level = step.sparsity
        plan.append((part, step))
    return plan


def _judge(replies: list[Reply], kills: list[Kill], *, rate: float, planned: int, facts: dict[str, str]) -> Result:
    """Return laws, goals and figures of a finished run."""
    run_end_s = max((reply.done_s for reply in replies), default=0.0)
    ends_s = [*(kill.asked_s for kill in kills[1:]), run_end_s]
    costs = [cost_of(kill, replies, end_s) for kill, end_s in zip(kills, ends_s, strict=False)]
    windows = [kill.window(run_end_s) for kill in kills]
    inside, outside = split_by_windows(replies, windows)
    backs = [float("nan") if kill.back_s is None else kill.back_s - kill.killed_s for kill in kills]
    goals = []
    for part in dict.fromkeys(kill.part for kill in kills):
        mine = [place for place, kill in enumerate(kills) if kill.part is part]
        later = max(costs[place].failed_later for place in mine)
        goals += [Goal(name=f"{part}: failed requests that were not in flight", value=later, limit=0)]
        goals += [Goal(name=f"{part}: seconds until all is back", value=max(backs[place] for place in mine), limit=60)]
    quiet_s = run_end_s - seconds_of(windows)
    return Result(
        scenario="chaos",
        facts=facts,
        phases=(
            summarize("all in place", outside, seconds=quiet_s, offered_rate=rate),
            summarize("from a kill until all is back", inside, seconds=seconds_of(windows)),
        ),
        laws=(
            all_came_back(kills, planned),
            nothing_durable_is_lost(kills),
            generation_never_goes_back(replies),
            what_answers_nothing_costs_nothing(kills, costs),
            quiet_between(kills, replies),
        ),
        goals=tuple(goals),
        tables=(kill_table(kills, costs),),
        details={"kills": kill_details(kills, costs)},
        replies={"requests": replies},
        draw=partial(draw_timeline, kills, replies),
    )


def _told(kill: Kill, number: int, planned: int) -> str:
    """Return one line of progress."""
    outcome = "not back in time" if kill.back_s is None else f"all back in {kill.back_s - kill.killed_s:.1f} s"
    return f"kill {number}/{planned}: {kill.part} {kill.pid} while {kill.phase} -> {kill.operation.phase}, {outcome}"
