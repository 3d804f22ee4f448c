"""A batcher whose lanes run when the test says so, on a model that answers each sequence with itself."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from service.batcher import TokenBatcher
from service.lanes import Lanes
from service.load_meter import LoadMeter
from service.queued import Answered
from service.room import Room

S = TypeVar("S")

BUDGET = 16
QUEUE = 40


@dataclass(frozen=True)
class Sequence_:
    """``length`` tokens that all carry the number of their request."""

    request: int
    length: int
    position: int = 0

    @property
    def ids(self) -> list[int]:
        return [self.request] * self.length


class Level:
    pass


LEVEL = Level()


class Poison(Exception):
    pass


class SteppedExecutor(Executor):
    """Runs what was submitted when the test says so, on the test's own thread."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def step(self, position: int = 0) -> None:
        future, work = self.waiting.pop(position)
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)


@dataclass
class Model:
    """Answers each sequence with itself; refuses batches with a poisoned request; remembers what it ran."""

    poisoned: set[int] = field(default_factory=set)
    batches: list[list[Sequence_]] = field(default_factory=list)
    snapshots: list[int] = field(default_factory=list)

    def __call__(self, snapshot: int, sequences: Sequence[Sequence_]) -> list[tuple[int, Sequence_]]:
        self.batches.append(list(sequences))
        self.snapshots.append(snapshot)
        if self.poisoned & {sequence.request for sequence in sequences}:
            raise Poison
        return [(snapshot, sequence) for sequence in sequences]


async def settle() -> None:
    """Let everything that is ready run."""
    for _ in range(12):
        await asyncio.sleep(0)


@dataclass
class Bench:
    batcher: TokenBatcher[int, Sequence_]
    room: Room
    executor: SteppedExecutor
    model: Model
    clock: "itertools.count[int]"

    def send(self, request: int, *lengths: int) -> "asyncio.Task[Answered[int]]":
        sequences = [Sequence_(request, length, position) for position, length in enumerate(lengths)]
        return asyncio.create_task(self.batcher.submit(sequences))

    async def run_out(self) -> None:
        await settle()
        while self.executor.waiting or self.batcher.queue_tokens:
            if self.executor.waiting:
                self.executor.step()
            else:  # a batch waits for requests that are expected back
                await asyncio.sleep(0.001)
            await settle()


def lanes_on(executor: SteppedExecutor, narrow: int) -> Lanes:
    return Lanes(executor, executor, narrow) if narrow else Lanes(executor)


def room_of(max_tokens: int, full_batch: int, max_wait_s: float, meter: LoadMeter) -> Room:
    """Return the room of a queue without a latency target."""
    return Room(
        max_tokens=max_tokens, full_batch=full_batch, max_wait_s=max_wait_s, target_wait_s=lambda: None, meter=meter
    )


@asynccontextmanager
async def bench(
    *,
    budget: int = BUDGET,
    queue: int = QUEUE,
    poisoned: frozenset[int] = frozenset(),
    narrow: int = 0,
    queue_s: float = 1e6,
    batch_s: float = 1e6,
    meter: LoadMeter | None = None,
) -> AsyncIterator[Bench]:
    executor, model, clock = SteppedExecutor(), Model(set(poisoned)), itertools.count()
    meter = meter or LoadMeter()
    room = room_of(queue, budget, queue_s, meter)
    batcher = TokenBatcher[int, Sequence_](
        lambda choice: next(clock),
        model,
        max_batch_tokens=budget,
        level=lambda choice: LEVEL,
        max_batch_s=batch_s,
        room=room,
        lanes=lanes_on(executor, narrow),
        meter=meter,
    )
    batcher._schedule.worth_a_core = 1
    batcher.start()
    made = Bench(batcher, room, executor, model, clock)
    try:
        yield made
    finally:
        await made.run_out()
        await batcher.stop()


def roomy(
    snapshot: Callable[[Any], S], run: Callable[[S, Sequence[Sequence_]], Sequence[Any]], lanes: Lanes
) -> TokenBatcher[S, Sequence_]:
    """Return a batcher with room and time for all that a test sends; it is not started yet."""
    meter = LoadMeter()
    return TokenBatcher[S, Sequence_](
        snapshot,
        run,
        max_batch_tokens=64,
        level=lambda choice: LEVEL,
        max_batch_s=1e6,
        room=room_of(10_000, 64, 1e6, meter),
        lanes=lanes,
        meter=meter,
    )


def requests_of(batch: Sequence[Sequence_]) -> list[int]:
    return list(dict.fromkeys(sequence.request for sequence in batch))
