"""A small queueing model of the service under a governor: discrete time, seeded, no clock and no thread.

Every replica has an event loop, a queue bounded in seconds, and one lane that takes the oldest requests up to a budget
whenever it is idle. A batch costs something beside its tokens; tokens cost what the level says, and what HTTP takes.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.governor.decision import decide
from service.governor.levels import Bounds, Level
from service.governor.memory import TICK_S, Memory
from service.governor.moves import Move, Stay
from service.governor.observation import Readings
from service.load import Load

STEP_S = 0.01
TOKENS = 25
"""Of every request."""
DENSE_PER_S = 400.0
"""Requests a second that one replica answers at the dense level with full batches."""
BATCH_S, MOST_TOKENS = 0.003, 800
"""What a batch costs beside its tokens, and its budget."""
MAX_QUEUE_S = 2.0
SWAP_S = 0.15
"""From a move to the first answer by the new level."""


def ladder(*speedups: float) -> tuple[Level, ...]:
    """Levels of these speed-ups over the first, with falling accuracy."""
    return tuple(
        Level(
            variant_id=f"v{number}",
            name=f"{number / 10:g}",
            sparsity=number / 10,
            accuracy=0.9 - 0.01 * number,
            items_per_s=1000.0 * speedup,
        )
        for number, speedup in enumerate(speedups)
    )


LEVELS = ladder(1.0, 1.3, 1.5, 1.8, 2.1, 2.5, 3.1)
BOUNDS = Bounds(levels=LEVELS, slo_p99_s=0.5, accuracy_floor=0.0)


@dataclass
class Replica:
    """One replica; ``speed`` is its share of what another one does, ``loop_s`` what HTTP takes of a request."""

    speed: float = 1.0
    loop_s: float = 0.0002
    shares_cores: bool = True
    """Whether the event loop takes its time from the lane's."""
    now_s: float = 0.0
    refused: int = 0
    accepted: int = 0
    answered: int = 0
    busy_s: float = 0.0
    looped_s: float = 0.0
    rate: float = DENSE_PER_S
    at_door: deque[float] = field(default_factory=deque)
    """Arrival times of requests that the event loop has yet to read."""
    door_s: float = 0.0
    """Seconds of the event loop that were not used yet."""
    waiting: deque[float] = field(default_factory=deque)
    batch: list[float] = field(default_factory=list)
    left_s: float = 0.0
    computed_s: float = 0.0
    answers: deque[tuple[float, float, float]] = field(default_factory=deque)
    """When, seconds from arrival to answer, and those of queue and model."""

    def step(self, arrivals: int, speedup: float, late_s: Callable[[], float], stall_s: Callable[[], float]) -> None:
        """Let ``STEP_S`` pass."""
        self.now_s += STEP_S
        self.at_door.extend([self.now_s] * arrivals)
        self.door_s = min(self.door_s, 0.0) + STEP_S
        while self.at_door and self.door_s > 0:
            self.door_s -= self.loop_s
            self.looped_s += self.loop_s
            self._enter(self.at_door.popleft())
        self._compute(speedup, late_s, stall_s)
        while self.answers and self.answers[0][0] < self.now_s - 2.0:
            self.answers.popleft()

    def _enter(self, arrived_s: float) -> None:
        if len(self.waiting) / self.rate >= MAX_QUEUE_S:
            self.refused += 1
        else:
            self.accepted += 1
            self.waiting.append(arrived_s)

    def _compute(self, speedup: float, late_s: Callable[[], float], stall_s: Callable[[], float]) -> None:
        free_s = STEP_S
        while free_s > 0 and (self.batch or self.waiting):
            if not self.batch:
                size = min(len(self.waiting), MOST_TOKENS // TOKENS)
                self.batch = [self.waiting.popleft() for _ in range(size)]
                model_s = size / (DENSE_PER_S * speedup * self.speed)
                self.left_s = BATCH_S + model_s + stall_s() + self.shares_cores * size * self.loop_s
                self.computed_s += BATCH_S + model_s
                self.rate = 0.9 * self.rate + 0.1 * size / self.left_s
            spent_s = min(free_s, self.left_s)
            free_s -= spent_s
            self.left_s -= spent_s
            self.busy_s += spent_s
            if self.left_s <= 0:
                self.answered += len(self.batch)
                for arrived_s in self.batch:
                    model_s = self.now_s - arrived_s
                    self.answers.append((self.now_s, model_s + late_s(), model_s))
                self.batch = []

    def load(self) -> Load:
        """Read it, as the controller is told."""
        return Load(
            at_s=self.now_s,
            refused=self.refused,
            accepted=self.accepted,
            accepted_tokens=TOKENS * self.accepted,
            answered_tokens=TOKENS * self.answered,
            busy_s=self.busy_s,
            model_s=self.computed_s,
            loop_s=self.looped_s,
            queue_tokens=TOKENS * len(self.waiting),
            queue_s=len(self.waiting) / self.rate,
            p99_s=_p99(latency_s for _, latency_s, _ in self.answers),
            model_p99_s=_p99(model_s for _, _, model_s in self.answers),
        )


def _p99(values: Iterable[float]) -> float | None:
    ordered = sorted(values)
    return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else None


@dataclass(frozen=True)
class Tick:
    """What stood at one tick, and what was decided."""

    at_s: float
    level: Level
    decision: Move | Stay
    refused: int
    """Since the beginning."""
    p99_s: float


@dataclass(frozen=True)
class Trace:
    """A finished simulation."""

    ticks: tuple[Tick, ...]

    def moves(self, start_s: float = 0.0, end_s: float = math.inf) -> list[tuple[float, Move]]:
        """Every move asked for in a span."""
        ticks = (tick for tick in self.ticks if start_s <= tick.at_s < end_s)
        return [(tick.at_s, tick.decision) for tick in ticks if isinstance(tick.decision, Move)]

    def levels(self, start_s: float = 0.0, end_s: float = math.inf) -> list[Level]:
        """What answered at every tick of a span."""
        return [tick.level for tick in self.ticks if start_s <= tick.at_s < end_s]

    def refused(self, start_s: float = 0.0, end_s: float = math.inf) -> int:
        """Requests refused in a span."""
        counts = [tick.refused for tick in self.ticks if start_s <= tick.at_s < end_s]
        return counts[-1] - counts[0]

    def worst_p99_s(self, start_s: float, end_s: float = math.inf) -> float:
        """The largest 99th percentile over two seconds that a replica reported in a span."""
        return max(tick.p99_s for tick in self.ticks if start_s <= tick.at_s < end_s)


def simulate(
    traffic: Callable[[float], float],
    seconds: float,
    *,
    bounds: Bounds | Callable[[float], Bounds] = BOUNDS,
    level: Level = LEVELS[0],
    replicas: Sequence[Replica] | None = None,
    there: Callable[[float], int] = lambda now_s: 256,
    really: Callable[[Level], float] = lambda level: level.items_per_s / 1000.0,
    late_s: Callable[[np.random.Generator], float] = lambda draw: 0.0,
    stall_s: Callable[[np.random.Generator], float] = lambda draw: 0.0,
    swaps_work: bool = True,
    seed: int = 0,
) -> Trace:
    """Return what happens under ``traffic``, in requests a second by time.

    Args:
        traffic: what all replicas get together, shared out evenly at random.
        seconds: how long.
        bounds: what the governor is told, at all times or by time.
        level: what answers at first.
        replicas: one, unless told otherwise.
        there: how many of them there are at a time, the first ones; the others get and report nothing.
        really: speed-up that a level has in service; by default what the governor is told.
        late_s: latency beside queue and batch, drawn for every answer.
        stall_s: what a batch takes longer, drawn for every batch.
        swaps_work: whether a move is ever carried out.
        seed: of arrivals, ``late_s`` and ``stall_s``.
    """
    draw = np.random.default_rng(seed)
    everyone = list(replicas or [Replica()])
    memory, readings, ticks = Memory(), Readings(), []
    coming: tuple[float, Level] | None = None
    for number in range(round(seconds / STEP_S)):
        now_s = number * STEP_S
        fleet = everyone[: there(now_s)]
        if coming is not None and now_s >= coming[0]:
            level, coming = coming[1] if swaps_work else level, None
        arrivals = draw.poisson(traffic(now_s) * STEP_S / len(fleet), len(fleet))
        for replica, count in zip(fleet, arrivals, strict=True):
            replica.step(int(count), really(level), lambda: late_s(draw), lambda: stall_s(draw))
        if number % round(TICK_S / STEP_S) == 0:
            readings.take({str(place): replica.load() for place, replica in enumerate(fleet)})
            seen = readings.observe(now_s=now_s, level=level, changing=coming is not None)
            if seen is None:
                continue
            memory, decision = decide(memory, seen, bounds(now_s) if callable(bounds) else bounds)
            ticks.append(Tick(now_s, level, decision, sum(one.refused for one in everyone), seen.p99_s or 0.0))
            if isinstance(decision, Move):
                coming = (now_s + SWAP_S, decision.level)
    return Trace(tuple(ticks))


def step(low: float, high: float, start_s: float, end_s: float) -> Callable[[float], float]:
    """Traffic that is ``high`` in a span, and ``low`` before and after it."""
    return lambda now_s: high if start_s <= now_s < end_s else low
