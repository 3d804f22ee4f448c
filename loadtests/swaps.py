"""A sequence of swaps: which levels to visit, what became of each, and how soon the new variant answered."""

import asyncio
import random
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import median
from typing import Any

from loadtests.admin import AdminClient, Operation
from loadtests.client import Clock
from loadtests.errors import AdminError, LoadTestError
from loadtests.laws import Law
from loadtests.phases import Window
from loadtests.records import Reply
from loadtests.report import milliseconds
from loadtests.result import Table

STEP = 0.001
"""New levels are multiples of it."""


class Kind(StrEnum):
    """What a swap goes to."""

    LADDER = "ladder"
    NEW = "new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A level to visit."""

    sparsity: float
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """One change as it went."""

    step: Step
    asked_s: float
    """When the ``PUT`` was sent, on the run's clock."""
    settled_s: float
    """When its end was known."""
    operation: Operation | None
    """None when the admin API refused or did not settle it."""
    error: str
    """Why it did not commit; empty when it did."""

    @property
    def generation(self) -> int | None:
        """The generation that it committed; None where it did not commit."""
        return self.operation.generation if self.operation is not None and self.operation.committed else None

    @property
    def committed(self) -> bool:
        """True when the service says so and states the generation."""
        return self.generation is not None

    def window(self, margin_s: float) -> Window:
        """Return the span in which the swap may touch a request: from the ``PUT`` to ``margin_s`` after its end."""
        return Window(start_s=self.asked_s, end_s=self.settled_s + margin_s)


def plan_swaps(
    levels: Sequence[float],
    count: int,
    *,
    seed: int,
    start: float | None = None,
    known: Iterable[float] = (),
    new_share: float = 0.5,
) -> list[Step]:
    """Return ``count`` steps, ``new_share`` of them to levels never seen before, the rest to the ladder's, well mixed.

    New levels lie strictly between the lowest and the highest of ``levels`` and are none of them nor of the ``known``
    ones, of which a variant exists already. No step repeats the level before it, the first not ``start``, so that each
    is a real swap. The same arguments give the same plan.

    Raises:
        LoadTestError: fewer than two levels, or too narrow a range for that many new ones; a share out of [0, 1].
    """
    if not 0.0 <= new_share <= 1.0:
        raise LoadTestError(f"the share of swaps to new levels must lie in [0, 1]; got {new_share:g}")
    if len(levels) < 2:
        raise LoadTestError(f"swapping needs a ladder of two levels or more; got {list(levels)}")
    draw = random.Random(seed)
    taken = {round(level / STEP) for level in (*levels, *known)}
    lowest, highest = round(min(levels) / STEP), round(max(levels) / STEP)
    free = [number for number in range(lowest + 1, highest) if number not in taken]
    new = int(count * new_share)
    if len(free) < new:
        raise LoadTestError(f"there are {len(free)} new levels between {levels[0]} and {levels[-1]}; need {new}")
    fresh = [round(number * STEP, 3) for number in draw.sample(free, new)]
    kinds = [Kind.NEW] * len(fresh) + [Kind.LADDER] * (count - len(fresh))
    draw.shuffle(kinds)
    steps: list[Step] = []
    before = start
    for kind in kinds:
        sparsity = fresh.pop() if kind is Kind.NEW else draw.choice([level for level in levels if level != before])
        steps.append(Step(sparsity=sparsity, kind=kind))
        before = sparsity
    return steps


async def perform(
    admin: AdminClient, clock: Clock, steps: Iterable[Step], *, pause_s: float, load: asyncio.Task[Any]
) -> AsyncIterator[Swap]:
    """Yield each swap once it has ended, ``pause_s`` apart, for as long as ``load`` goes on."""
    for step in steps:
        if load.done():
            return
        asked_s = clock.now()
        operation, error = None, ""
        try:
            operation = await admin.dial(step.sparsity)
        except AdminError as refusal:
            error = str(refusal)
        if operation is not None and not operation.committed:
            error = f"{operation.phase} {operation.detail}".strip()
        yield Swap(step=step, asked_s=asked_s, settled_s=clock.now(), operation=operation, error=error)
        await asyncio.sleep(pause_s)


def every_swap_commits(swaps: Sequence[Swap], planned: int) -> Law:
    """Every planned swap ends committed, each with a higher generation than the one before."""
    cases = [f"{swap.step.kind} {swap.step.sparsity}: {swap.error}" for swap in swaps if not swap.committed]
    generations = [swap.generation for swap in swaps if swap.generation is not None]
    cases += [f"generation {later} after {earlier}" for earlier, later in pairwise(generations) if later <= earlier]
    if len(swaps) < planned:
        cases.append(f"only {len(swaps)} of {planned} swaps were made before the load ended")
    told = "; ".join(cases[:3]) or f"{planned} swaps"
    return Law(name="every swap commits", broken=len(cases), detail=told)


def first_answers_s(swaps: Iterable[Swap], replies: Iterable[Reply]) -> dict[int, float]:
    """Return, by generation, the seconds from ``PUT`` to the first answer that states this generation or a later one.

    A generation that no reply reached is left out. The load's spacing is the resolution.
    """
    seen = sorted((reply.done_s, reply.generation) for reply in replies if reply.generation is not None)
    newest, times, generations = -1, [], []
    for done_s, generation in seen:
        if generation > newest:
            newest = generation
            times.append(done_s)
            generations.append(generation)
    found: dict[int, float] = {}
    for swap in swaps:
        if swap.generation is None:
            continue
        place = bisect_left(generations, swap.generation)
        if place < len(times):
            found[swap.generation] = times[place] - swap.asked_s
    return found


def swap_table(swaps: Sequence[Swap], first_s: dict[int, float]) -> Table:
    """Return min, median and max of both durations, by kind of swap."""
    rows = []
    for kind in Kind:
        committed = [swap for swap in swaps if swap.committed and swap.step.kind is kind]
        settled = [swap.settled_s - swap.asked_s for swap in committed]
        firsts = [first_s[swap.generation] for swap in committed if swap.generation in first_s]
        rows.append((kind.value, str(len(settled)), *_spread(settled), *_spread(firsts)))
    spans = (f"PUT to {end}, {name}" for end in ("committed", "first answer") for name in _NAMES)
    header = ("swaps to", "committed", *spans)
    return Table(title="Swaps (ms)", header=header, rows=tuple(rows))


def swap_details(swaps: Iterable[Swap], first_s: dict[int, float]) -> list[dict[str, Any]]:
    """Return one JSON object per swap, durations in seconds."""
    return [
        {
            "kind": swap.step.kind.value,
            "sparsity": swap.step.sparsity,
            "asked_s": swap.asked_s,
            "settled_s": swap.settled_s,
            "committed": swap.committed,
            "generation": swap.generation,
            "operation": swap.operation.id if swap.operation else None,
            "first_answer_s": None if swap.generation is None else first_s.get(swap.generation),
            "error": swap.error,
        }
        for swap in swaps
    ]


_NAMES = ("min", "median", "max")


def _spread(values_s: Sequence[float]) -> tuple[str, ...]:
    return tuple(milliseconds(pick(values_s)) if values_s else "-" for pick in (min, median, max))
