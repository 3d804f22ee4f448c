"""Processes killed while the dial turns: what each kill cost, how soon everything was back, and what was lost."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.admin import AdminClient, Operation
from loadtests.client import Clock
from loadtests.errors import AdminError
from loadtests.laws import Law
from loadtests.phases import Window
from loadtests.processes import Part, kill_one, parts_of
from loadtests.records import Reply
from loadtests.result import Table
from loadtests.swaps import Step

POLL_S = 0.1
APART = (Part.CONTROLLER, Part.BUILDER)
"""Parts that no request goes through."""
LEGEND = (
    "*In flight*: requests on their way at the moment of the kill. *Of them*: those that failed. *Later*: failed ones "
    "that were sent after it. *Answers again*: seconds from the kill until the last failed request was sent. *All "
    "back*: until the process was replaced (a builder: whenever there is something to build), the change had ended, "
    "every replica was on the committed generation and the front door led to them."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One process killed in one change."""

    part: Part
    pid: int
    step: Step
    phase: str
    """Of the change, when the process was killed."""
    asked_s: float
    """When the change was asked for, on the run's clock."""
    killed_s: float
    back_s: float | None
    """When everything was back; None if that was not seen in time."""
    operation: Operation
    """The change, as it ended, or as it was known last."""
    generation: int
    """Committed in the end, as the service says."""
    lost: tuple[str, ...]
    """What was promised before and is not so now."""

    def window(self, end_s: float) -> Window:
        """Return the span in which the kill may touch a request: until everything was back, or to ``end_s``."""
        return Window(start_s=self.killed_s, end_s=end_s if self.back_s is None else self.back_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one kill cost the requests of the load."""

    in_flight: int
    failed_in_flight: int
    failed_later: int
    kinds: dict[str, int]
    """Failed requests by status or transport error."""
    silent_s: float
    """Seconds from the kill until the last failed request was sent; 0 if none failed later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaper:
    """Kills parts of one service."""

    pid: int
    """The ``sparsedial serve`` whose processes they are."""
    admin: AdminClient
    clock: Clock
    draw: random.Random
    limit_s: float
    """How long everything may take to come back."""

    async def kill(self, part: Part, step: Step, *, within_s: float) -> Kill:
        """Ask for a level, kill a process of ``part`` at a moment drawn from ``within_s``, wait until all is back.

        Raises:
            AdminError: the change was refused, before anything was killed.
            LoadTestError: there is no such process.
        """
        before = await self.admin.state()
        processes = len(parts_of(self.pid, part))
        asked_s = self.clock.now()
        operation = await self.admin.begin(step.sparsity)
        await asyncio.sleep(self.draw.uniform(0.0, within_s))
        operation = await self.admin.operation(operation.id)
        phase, killed_s = operation.phase, self.clock.now()
        pid = kill_one(self.pid, part, self.draw)
        deadline_s, back_s, after = killed_s + self.limit_s, None, None
        while back_s is None and self.clock.now() < deadline_s:
            await asyncio.sleep(POLL_S)
            try:
                operation, after = await self.admin.operation(operation.id), await self.admin.state()
                await self.admin.require_ready()
            except AdminError:  # away, as it may be
                continue
            # A builder that had nothing to build is replaced when there is something.
            replaced = part is Part.BUILDER or _is_replaced(pid, parts_of(self.pid, part), processes)
            if replaced and operation.ended and _together(after, before):
                back_s = self.clock.now()
        return Kill(
            part=part,
            pid=pid,
            step=step,
            phase=phase,
            asked_s=asked_s,
            killed_s=killed_s,
            back_s=back_s,
            operation=operation,
            generation=int((after or before)["generation"]),
            lost=await self._lost(before, operation),
        )

    async def _lost(self, before: dict[str, Any], operation: Operation) -> tuple[str, ...]:
        """Return in words what the service no longer knows, or knows otherwise."""
        try:
            now, known, stored = await self.admin.state(), await self.admin.operation(operation.id), None
            stored = await self.admin.variants()
        except AdminError as error:
            return (f"the state cannot be read: {error}",)
        wanted = (known.generation, known.variant) if known.committed else (before["generation"], before["variant"])
        lost = []
        if (now["generation"], now["variant"]) != wanted:
            lost.append(f"generation {now['generation']} of {now['variant']} is committed; promised: {wanted}")
        if now["variant"] not in stored:
            lost.append(f"the committed variant {now['variant']} is not in the store")
        if now["generation"] < before["generation"]:
            lost.append(f"generation {before['generation']} is forgotten")
        return tuple(lost)


def _is_replaced(pid: int, running: Sequence[int], count: int) -> bool:
    """Tell whether the killed process is gone and there are as many as before."""
    return pid not in running and len(running) >= count


def _together(after: dict[str, Any], before: dict[str, Any]) -> bool:
    """Tell whether as many replicas as before answer, all under the committed generation."""
    generations = [replica["generation"] for replica in after["replicas"]]
    return len(generations) >= len(before["replicas"]) and set(generations) == {after["generation"]}


def cost_of(kill: Kill, replies: Sequence[Reply], end_s: float) -> Cost:
    """Return what a kill cost; ``end_s`` is when the next change was asked for, or the run ended."""
    in_flight = [reply for reply in replies if reply.sent_s <= kill.killed_s < reply.done_s]
    due = [reply for reply in replies if kill.killed_s < reply.sent_s and reply.intended_s < end_s]
    broken, later = [reply for reply in in_flight if reply.failed], [reply for reply in due if reply.failed]
    return Cost(
        in_flight=len(in_flight),
        failed_in_flight=len(broken),
        failed_later=len(later),
        kinds=dict(Counter(reply.error or str(reply.status) for reply in broken + later)),
        silent_s=max((reply.sent_s - kill.killed_s for reply in later), default=0.0),
    )


def all_came_back(kills: Sequence[Kill], planned: int) -> Law:
    """After every kill the process is replaced, the change ends, and every replica is on what is committed."""
    cases = [f"{kill.part} {kill.pid}: not back in time" for kill in kills if kill.back_s is None]
    if len(kills) < planned:
        cases.append(f"only {len(kills)} of {planned} processes were killed before the run ended")
    return Law(name="everything comes back", broken=len(cases), detail="; ".join(cases[:3]) or f"{len(kills)} kills")


def nothing_durable_is_lost(kills: Sequence[Kill]) -> Law:
    """What was accepted ends, what was committed stays so, and the store can be read."""
    cases = [f"{kill.part} {kill.pid}: {words}" for kill in kills for words in kill.lost]
    told = "; ".join(cases[:3]) or f"{len(kills)} changes, each known to its end"
    return Law(name="nothing durable is lost", broken=len(cases), detail=told)


def what_answers_nothing_costs_nothing(kills: Sequence[Kill], costs: Sequence[Cost]) -> Law:
    """No request fails when a process dies that no request goes through."""
    cases = [
        f"{kill.part} {kill.pid}: {cost.kinds}"
        for kill, cost in zip(kills, costs, strict=True)
        if kill.part in APART and cost.kinds
    ]
    told = "; ".join(cases[:3]) or f"{sum(kill.part in APART for kill in kills)} such kills"
    return Law(name="controller and builder cost no request", broken=len(cases), detail=told)


def quiet_between(kills: Sequence[Kill], replies: Sequence[Reply]) -> Law:
    """Once everything is back, every request is answered under the committed generation."""
    cases = []
    spans = [kill.asked_s for kill in kills[1:]] + [float("inf")]
    for kill, end_s in zip(kills, spans, strict=True):
        if kill.back_s is None:
            continue
        cases += [
            f"request {reply.index}: {reply.error or reply.status}, generation {reply.generation}"
            for reply in replies
            if kill.back_s <= reply.intended_s and reply.done_s < end_s
            if reply.failed or reply.generation != kill.generation
        ]
    told = "; ".join(cases[:3]) or "every request answered under the committed generation"
    return Law(name="all is well once everything is back", broken=len(cases), detail=told)


def kill_table(kills: Sequence[Kill], costs: Sequence[Cost]) -> Table:
    """Return one row per kill."""
    rows = [
        (
            str(kill.part),
            f"{kill.step.kind} {kill.step.sparsity:g}, {kill.phase}",
            kill.operation.phase,
            str(cost.in_flight),
            str(cost.failed_in_flight),
            str(cost.failed_later),
            ", ".join(f"{count} x {kind}" for kind, count in cost.kinds.items()) or "-",
            f"{cost.silent_s:.2f}",
            "never" if kill.back_s is None else f"{kill.back_s - kill.killed_s:.1f}",
        )
        for kill, cost in zip(kills, costs, strict=True)
    ]
    header = ("killed", "change", "ended", "in flight", "of them", "later", "failures", "answers again", "all back")
    return Table(title="Kills", header=header, rows=tuple(rows), legend=LEGEND)


def kill_details(kills: Sequence[Kill], costs: Sequence[Cost]) -> list[dict[str, Any]]:
    """Return one JSON object per kill, durations in seconds."""
    return [
        {
            "part": str(kill.part),
            "sparsity": kill.step.sparsity,
            "kind": str(kill.step.kind),
            "phase": kill.phase,
            "killed_s": kill.killed_s,
            "all_back_s": None if kill.back_s is None else kill.back_s - kill.killed_s,
            "operation": kill.operation.id,
            "ended": kill.operation.phase,
            "generation": kill.generation,
            "in_flight": cost.in_flight,
            "failed_in_flight": cost.failed_in_flight,
            "failed_later": cost.failed_later,
            "failures": cost.kinds,
            "silent_s": cost.silent_s,
            "lost": list(kill.lost),
        }
        for kill, cost in zip(kills, costs, strict=True)
    ]
