import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import service.gathering
from service.batcher import TokenBatcher
from service.deadlines import Deadline
from service.drain_rate import DrainRate
from service.errors import InferenceFailed, NotReady, Overloaded, TooLarge
from service.gathering import Gathering
from service.lanes import Lanes
from service.load_meter import LoadMeter
from service.queued import Answered
from service.schedule import Lane

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
ANY: dict[str, Any] = {"level": lambda choice: LEVEL, "max_batch_s": 1e6}
"""Batches may take any time."""


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
    batcher = TokenBatcher[int, Sequence_](
        lambda choice: next(clock),
        model,
        max_batch_tokens=budget,
        level=lambda choice: LEVEL,
        max_batch_s=batch_s,
        max_queue_tokens=queue,
        max_queue_s=queue_s,
        lanes=lanes_on(executor, narrow),
        meter=meter or LoadMeter(),
    )
    batcher._schedule.worth_a_core = 1
    batcher.start()
    made = Bench(batcher, executor, model, clock)
    try:
        yield made
    finally:
        await made.run_out()
        await batcher.stop()


def requests_of(batch: Sequence[Sequence_]) -> list[int]:
    return list(dict.fromkeys(sequence.request for sequence in batch))


async def test_an_idle_engine_answers_a_lone_request_at_once() -> None:
    async with bench() as b:
        task = b.send(0, 3, 2)
        await b.run_out()
        answered = await task
        assert answered.rows == [(0, Sequence_(0, 3, 0)), (0, Sequence_(0, 2, 1))]
        assert answered.snapshot == 0
        assert answered.queue_s >= 0
        assert answered.inference_s >= 0


@dataclass
class Patient(Gathering):
    """Waits as after a batch of ``batch_s`` seconds."""

    batch_s: float = 60.0

    def answered(self, requests: int, seconds: float, now_s: float) -> None:
        Gathering.answered(self, requests, self.batch_s, now_s)


async def waiting_behind_an_answered_one(b: Bench) -> asyncio.Task[Any]:
    """Return request 1, which came while request 0 ran; that one has its answer."""
    first = b.send(0, 1)
    await settle()
    second = b.send(1, 1)
    await settle()
    b.executor.step()
    await first
    return second


async def test_a_batch_waits_for_those_who_were_answered_a_moment_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.gathering, "LONGEST_S", 30.0)
    async with bench() as b:
        b.batcher._gathering, b.batcher._schedule.worth_a_core = Patient(), BUDGET
        second = await waiting_behind_an_answered_one(b)
        await settle()
        assert not b.executor.waiting
        again = b.send(0, 1)
        await settle()
        b.executor.step()
        await asyncio.gather(second, again)
        assert [requests_of(batch) for batch in b.model.batches] == [[0], [1, 0]]


@pytest.mark.parametrize(("enough", "batch_s"), [(1, 60.0), (BUDGET, 0.0)])
async def test_a_batch_does_not_wait_where_enough_waits_or_where_the_last_one_took_no_time(
    enough: int, batch_s: float
) -> None:
    async with bench() as b:
        b.batcher._gathering, b.batcher._schedule.worth_a_core = Patient(batch_s=batch_s), enough
        second = await waiting_behind_an_answered_one(b)
        await settle()
        b.executor.step()
        await second


async def test_a_wait_ends_by_itself() -> None:
    async with bench() as b:
        b.batcher._gathering, b.batcher._schedule.worth_a_core = Patient(), BUDGET
        second = await waiting_behind_an_answered_one(b)
        async with asyncio.timeout(10):
            while not b.executor.waiting:
                await asyncio.sleep(0.001)
        b.executor.step()
        await second


async def test_a_request_whose_deadline_passed_in_the_queue_is_left_out_of_the_batch() -> None:
    async with bench() as b:
        b.send(0, 1)
        await settle()
        deadline = Deadline(at=asyncio.get_running_loop().time(), limit_s=0.0)
        late = asyncio.create_task(b.batcher.submit([Sequence_(1, 1)], deadline))
        b.send(2, 1)
        await b.run_out()
        late.cancel()
        assert [requests_of(batch) for batch in b.model.batches] == [[0], [2]]
        assert b.batcher.queue_tokens == 0


async def test_requests_gather_while_the_engine_is_busy() -> None:
    async with bench() as b:
        first = b.send(0, 1)
        await settle()
        rest = [b.send(request, 2) for request in range(1, 6)]
        await settle()
        assert b.batcher.queue_tokens == 10
        await b.run_out()
        await asyncio.gather(first, *rest)
        assert [requests_of(batch) for batch in b.model.batches] == [[0], [1, 2, 3, 4, 5]]


async def test_a_request_beyond_the_budget_runs_alone_and_in_its_turn() -> None:
    async with bench() as b:
        tasks = [b.send(0, 1), b.send(1, 1), b.send(2, BUDGET + 1), b.send(3, 1)]
        await b.run_out()
        await asyncio.gather(*tasks)
        assert [requests_of(batch) for batch in b.model.batches] == [[0, 1], [2], [3]]


async def test_a_batch_has_no_more_tokens_than_its_level_runs_in_time() -> None:
    async with bench(budget=1000, queue=5000, batch_s=1.0) as b:
        b.batcher._paces.record(LEVEL, Lane.WIDE, tokens=300, seconds=1.0)
        tasks = [b.send(request, 100) for request in range(7)]
        await settle()
        assert b.batcher.queue_tokens == 400
        await b.run_out()
        await asyncio.gather(*tasks)


async def test_one_batch_runs_on_one_snapshot_taken_when_it_forms() -> None:
    async with bench() as b:
        first = b.send(0, 1)
        await settle()
        others = [b.send(1, 1), b.send(2, 1)]
        await b.run_out()
        assert [(await task).snapshot for task in (first, *others)] == [0, 1, 1]


async def test_only_the_guilty_request_of_a_batch_fails() -> None:
    async with bench(poisoned=frozenset({2})) as b:
        tasks = [b.send(request, 1) for request in range(4)]
        await b.run_out()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [Answered, Answered, InferenceFailed, Answered]
        assert isinstance(results[2].__cause__, Poison)  # type: ignore[union-attr]
        assert b.batcher.alive


async def test_a_result_with_rows_missing_fails_and_does_not_shift_answers() -> None:
    executor = SteppedExecutor()
    batcher = TokenBatcher[int, Sequence_](
        lambda choice: 0,
        lambda snapshot, sequences: [],
        **ANY,
        max_batch_tokens=8,
        max_queue_tokens=8,
        max_queue_s=1.0,
        lanes=Lanes(executor),
        meter=LoadMeter(),
    )
    batcher.start()
    task = asyncio.create_task(batcher.submit([Sequence_(0, 1)]))
    await settle()
    executor.step()
    with pytest.raises(InferenceFailed):
        await task
    await batcher.stop()


async def test_a_failing_snapshot_fails_requests_and_not_the_batcher() -> None:
    def no_snapshot(choice: object) -> int:
        raise Poison

    batcher = TokenBatcher[int, Sequence_](
        no_snapshot,
        Model(),
        **ANY,
        max_batch_tokens=8,
        max_queue_tokens=8,
        max_queue_s=1.0,
        lanes=Lanes(SteppedExecutor()),
        meter=LoadMeter(),
    )
    batcher.start()
    with pytest.raises(InferenceFailed):
        await batcher.submit([Sequence_(0, 1)])
    assert batcher.alive
    await batcher.stop()


async def test_a_full_queue_is_refused_with_the_time_it_takes_to_drain() -> None:
    async with bench() as b:
        busy = b.send(0, 1)
        await settle()
        waiting = [b.send(request, 10) for request in range(1, 5)]
        await settle()
        b.batcher._rate = DrainRate()
        b.batcher._rate.record(tokens=8, start=0.0, end=1.0)
        with pytest.raises(Overloaded) as refused:
            await b.batcher.submit([Sequence_(9, 1)])
        assert refused.value.retry_after_s == 5
        await b.run_out()
        await asyncio.gather(busy, *waiting)


async def test_room_for_a_small_request_is_known_without_one() -> None:
    async with bench(queue_s=2.0) as b:
        b.batcher._rate.record(tokens=10, start=0.0, end=1.0)
        b.batcher.check_room()
        busy = b.send(0, 1)
        await settle()
        waiting = b.send(1, 20)
        await settle()
        with pytest.raises(Overloaded, match="20 of 20 tokens wait"):
            b.batcher.check_room()
        await b.run_out()
        await asyncio.gather(busy, waiting)
        b.batcher.check_room()


async def test_no_more_may_wait_than_drains_in_time_but_always_a_batch() -> None:
    async with bench(queue_s=2.0) as b:
        assert b.batcher.queue_limit_tokens == QUEUE
        b.batcher._rate.record(tokens=15, start=0.0, end=1.0)
        assert b.batcher.queue_limit_tokens == 30
        b.batcher._rate = DrainRate()
        b.batcher._rate.record(tokens=1, start=0.0, end=1.0)
        assert b.batcher.queue_limit_tokens == BUDGET


async def test_what_counts_is_the_wait_before_a_request_and_not_its_own_length() -> None:
    async with bench(queue_s=2.0) as b:
        busy = b.send(0, 1)
        await settle()
        b.batcher._rate.record(tokens=10, start=0.0, end=1.0)
        waiting = [b.send(1, 19), b.send(2, 21)]
        await settle()
        with pytest.raises(Overloaded, match="40 of 20 tokens wait"):
            await b.batcher.submit([Sequence_(3, 1)])
        await b.run_out()
        await asyncio.gather(busy, *waiting)


async def test_a_request_larger_than_the_queue_is_too_large_even_when_idle() -> None:
    async with bench() as b:
        with pytest.raises(TooLarge, match=f"{QUEUE + 1} tokens; at most {QUEUE}"):
            await b.batcher.submit([Sequence_(0, QUEUE + 1)])


async def test_a_cancelled_request_leaves_the_queue_with_its_tokens_and_is_never_run() -> None:
    async with bench() as b:
        busy = b.send(0, 1)
        await settle()
        leaving, staying = b.send(1, 5), b.send(2, 3)
        await settle()
        leaving.cancel()
        await settle()
        assert b.batcher.queue_tokens == 3
        await b.run_out()
        await asyncio.gather(busy, staying)
        assert [requests_of(batch) for batch in b.model.batches] == [[0], [2]]


async def test_a_batch_that_forms_in_the_moment_of_a_cancellation_leaves_that_request_out() -> None:
    async with bench() as b:
        busy = b.send(0, 1)
        await settle()
        leaving, staying = b.send(1, 5), b.send(2, 3)
        await settle()
        b.executor.step()
        leaving.cancel()
        await b.run_out()
        await asyncio.gather(busy, staying)
        assert [requests_of(batch) for batch in b.model.batches] == [[0], [2]]


async def test_a_request_for_every_core_gives_each_lane_a_batch_and_keeps_the_order_of_arrival() -> None:
    async with bench(narrow=2) as b:
        tasks = [b.send(request, 2) for request in range(4)]
        await settle()
        assert len(b.executor.waiting) == 2
        await b.run_out()
        await asyncio.gather(*tasks)
        assert [requests_of(batch) for batch in b.model.batches] == [[0, 1], [2, 3]]


async def test_a_lane_that_is_done_takes_the_next_batch_while_another_still_runs() -> None:
    async with bench(narrow=2) as b:
        first, second = b.send(0, 2), b.send(1, 2)
        await settle()
        third = b.send(2, 2)
        b.executor.step(1)
        await settle()
        assert second.done() and not first.done() and b.batcher.queue_tokens == 0
        b.executor.step(1)
        await settle()
        assert third.done() and not first.done()
        await b.run_out()
        await first


async def test_batches_side_by_side_each_finish_on_the_snapshot_they_began_with() -> None:
    async with bench(narrow=2) as b:
        tasks = [b.send(0, 2), b.send(1, 2)]
        await settle()
        b.executor.step(1)
        await b.run_out()
        assert [(await task).snapshot for task in tasks] == [0, 1]


async def test_an_error_on_one_lane_leaves_the_other_alone() -> None:
    async with bench(narrow=2, poisoned=frozenset({0})) as b:
        tasks = [b.send(request, 2) for request in range(4)]
        await b.run_out()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [InferenceFailed, Answered, Answered, Answered]


async def test_draining_waits_for_every_lane() -> None:
    async with bench(narrow=2) as b:
        tasks = [b.send(0, 1), b.send(1, 1)]
        await settle()
        drained = asyncio.create_task(b.batcher.drain())
        b.executor.step(1)
        await settle()
        assert not drained.done()
        await b.run_out()
        await drained
        assert all(task.done() for task in tasks)


async def test_draining_refuses_new_requests_and_waits_for_the_accepted_ones() -> None:
    async with bench() as b:
        accepted = [b.send(0, 1), b.send(1, 1)]
        await settle()
        drained = asyncio.create_task(b.batcher.drain())
        await settle()
        with pytest.raises(NotReady):
            await b.batcher.submit([Sequence_(2, 1)])
        assert not drained.done()
        await b.run_out()
        await drained
        assert all(task.done() for task in accepted)


async def test_a_batcher_that_never_ran_stops_at_once_when_its_queue_is_given_up() -> None:
    batcher = TokenBatcher[int, Sequence_](
        lambda choice: 0,
        Model(),
        **ANY,
        max_batch_tokens=8,
        max_queue_tokens=8,
        max_queue_s=1.0,
        lanes=Lanes(SteppedExecutor()),
        meter=LoadMeter(),
    )
    waiting = asyncio.create_task(batcher.submit([Sequence_(0, 1)]))
    await settle()
    waiting.cancel()
    await batcher.stop()
    assert batcher.queue_tokens == 0


@pytest.mark.parametrize("cores", [1, 3])
async def test_real_threads_answer_a_hundred_requests_each_with_its_own_rows(cores: int) -> None:
    lanes = Lanes.start(cores, side_by_side=True)
    batcher = TokenBatcher[int, Sequence_](
        lambda choice: 0,
        Model(),
        **ANY,
        max_batch_tokens=64,
        max_queue_tokens=10_000,
        max_queue_s=100.0,
        lanes=lanes,
        meter=LoadMeter(),
    )
    batcher.start()
    answers = await asyncio.gather(*(batcher.submit([Sequence_(i, 1 + i % 7)]) for i in range(100)))
    await batcher.stop()
    lanes.close()
    assert [answered.rows[0][1].request for answered in answers] == list(range(100))


actions = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.booleans()),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("step"), st.integers(0, 3)),
        st.tuples(st.just("settle")),
    ),
    max_size=40,
)


@given(actions, st.sampled_from([0, 2, 3]))
@settings(max_examples=300, deadline=None)
def test_whatever_happens_nothing_is_lost_doubled_mixed_or_out_of_turn(
    plan: list[tuple[Any, ...]], narrow: int
) -> None:
    asyncio.run(_play(plan, narrow))


async def _play(plan: list[tuple[Any, ...]], narrow: int) -> None:
    tasks: dict[int, asyncio.Task[Answered[int]]] = {}
    cancelled: set[int] = set()
    async with bench(narrow=narrow) as b:
        for action, *arguments in plan:
            if action == "send":
                request = len(tasks)
                lengths, poisoned = arguments
                if poisoned:
                    b.model.poisoned.add(request)
                tasks[request] = b.send(request, *lengths)
            elif action == "cancel" and arguments[0] in tasks and not tasks[arguments[0]].done():
                tasks[arguments[0]].cancel()
                cancelled.add(arguments[0])
            elif action == "step" and b.executor.waiting:
                b.executor.step(arguments[0] % len(b.executor.waiting))
            elif action == "settle":
                await settle()
                side_by_side = len(b.executor.waiting)
                assert side_by_side <= max(1, narrow)
                # Wide computes on all cores, and so does a full set of narrow lanes.
                assert b.batcher.queue_tokens == 0 or side_by_side == max(1, narrow) or b.batcher._schedule.wide
            assert 0 <= b.batcher.queue_tokens <= QUEUE
        await b.run_out()
        results = await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert b.batcher.queue_tokens == 0
        assert b.batcher.alive

    refused = {request for request, result in enumerate(results) if isinstance(result, Overloaded)}
    for request, result in enumerate(results):
        if isinstance(result, Answered):
            assert [row[1].request for row in result.rows] == [request] * len(result.rows)
            assert [row[1].position for row in result.rows] == list(range(len(result.rows)))
            assert {row[0] for row in result.rows} == {result.snapshot}
            assert request not in b.model.poisoned
        elif isinstance(result, InferenceFailed):
            assert request in b.model.poisoned
        else:
            assert request in (refused | cancelled)

    for batch in b.model.batches:
        tokens = sum(sequence.length for sequence in batch)
        assert tokens <= BUDGET or len(requests_of(batch)) == 1
    clean = [batch for batch in b.model.batches if not b.model.poisoned & set(requests_of(batch))]
    answered_once = [request for batch in clean for request in requests_of(batch)]
    assert len(answered_once) == len(set(answered_once))
    # Batches side by side end in any order; they began in that of their snapshots.
    begun = sorted(zip(b.model.snapshots, b.model.batches, strict=True), key=lambda run: run[0])
    starts = list(dict.fromkeys(request for _, batch in begun for request in requests_of(batch)))
    assert starts == sorted(starts)


async def test_requests_of_different_choices_run_apart_each_on_its_own_snapshot() -> None:
    executor, ran = SteppedExecutor(), []

    def run(snapshot: str, sequences: Sequence[Sequence_]) -> list[tuple[str, int]]:
        ran.append((snapshot, [sequence.request for sequence in sequences]))
        return [(snapshot, sequence.request) for sequence in sequences]

    batcher = TokenBatcher[str, Sequence_](
        lambda choice: f"on {choice}",
        run,
        **ANY,
        max_batch_tokens=64,
        max_queue_tokens=64,
        max_queue_s=1e6,
        lanes=Lanes(executor),
        meter=LoadMeter(),
    )
    batcher.start()
    choices = [None, "sparse", None, "sparse", "dense"]
    tasks = [
        asyncio.create_task(batcher.submit([Sequence_(number, 1)], choice=choice))
        for number, choice in enumerate(choices)
    ]
    await settle()
    while not all(task.done() for task in tasks):
        if executor.waiting:
            executor.step()
        await asyncio.sleep(0.001)  # the next batch may wait for clients that were answered a moment ago
    assert [task.result().rows for task in tasks] == [[(f"on {one}", number)] for number, one in enumerate(choices)]
    assert ran == [("on None", [0, 2]), ("on sparse", [1, 3]), ("on dense", [4])]
    await batcher.stop()


async def test_the_meter_is_told_what_comes_what_is_refused_and_what_runs_on_how_much_of_the_lanes() -> None:
    now_s = 0.0
    meter = LoadMeter(monotonic=lambda: now_s)
    async with bench(narrow=2, queue=4, budget=4, meter=meter) as made:
        first = [made.send(1, 2), made.send(2, 2)]
        await settle()
        now_s = 1.0
        waiting = [made.send(3, 3), made.send(4, 1)]
        await settle()
        with pytest.raises(Overloaded):
            await made.send(5, 1)
        load = meter.load(queue_tokens=made.batcher.queue_tokens, queue_s=made.batcher.queue_s)
        assert (load.accepted, load.accepted_tokens, load.refused, load.queue_tokens) == (4, 8, 1, 4)
        assert (load.answered_tokens, load.busy_s) == (0, 1.0)
        await made.run_out()
        assert meter.load(queue_tokens=0, queue_s=0.0).answered_tokens == 8
        now_s = 9.0
        assert meter.load(queue_tokens=0, queue_s=0.0).busy_s == 1.0
        assert made.batcher.queue_s == 0.0
        assert all([await one for one in (*first, *waiting)])


async def test_a_batch_that_fails_keeps_no_lane_busy() -> None:
    now_s = 0.0
    meter = LoadMeter(monotonic=lambda: now_s)
    async with bench(poisoned=frozenset({1}), meter=meter) as made:
        failing = made.send(1, 2)
        await made.run_out()
        with pytest.raises(InferenceFailed):
            await failing
        now_s = 5.0
        load = meter.load(queue_tokens=0, queue_s=0.0)
        assert (load.busy_s, load.answered_tokens) == (0.0, 0)
