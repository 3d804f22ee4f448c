import asyncio
from collections.abc import Sequence

import pytest

from service.errors import InferenceFailed, NotReady, Overloaded
from service.lanes import Lanes
from service.load_meter import LoadMeter
from service.queued import Answered
from service.schedule import Lane
from tests.service.batcher_parts import (
    BUDGET,
    LEVEL,
    Model,
    Poison,
    Sequence_,
    SteppedExecutor,
    bench,
    requests_of,
    roomy,
    settle,
)


async def test_an_idle_engine_answers_a_lone_request_at_once() -> None:
    async with bench() as b:
        task = b.send(0, 3, 2)
        await b.run_out()
        answered = await task
        assert answered.rows == [(0, Sequence_(0, 3, 0)), (0, Sequence_(0, 2, 1))]
        assert answered.snapshot == 0
        assert answered.queue_s >= 0
        assert answered.inference_s >= 0


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
    batcher = roomy(lambda choice: 0, lambda snapshot, sequences: [], Lanes(executor))
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

    batcher = roomy(no_snapshot, Model(), Lanes(SteppedExecutor()))
    batcher.start()
    with pytest.raises(InferenceFailed):
        await batcher.submit([Sequence_(0, 1)])
    assert batcher.alive
    await batcher.stop()


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
    batcher = roomy(lambda choice: 0, Model(), Lanes(SteppedExecutor()))
    waiting = asyncio.create_task(batcher.submit([Sequence_(0, 1)]))
    await settle()
    waiting.cancel()
    await batcher.stop()
    assert batcher.queue_tokens == 0


async def test_requests_of_different_choices_run_apart_each_on_its_own_snapshot() -> None:
    executor, ran = SteppedExecutor(), []

    def run(snapshot: str, sequences: Sequence[Sequence_]) -> list[tuple[str, int]]:
        ran.append((snapshot, [sequence.request for sequence in sequences]))
        return [(snapshot, sequence.request) for sequence in sequences]

    batcher = roomy(lambda choice: f"on {choice}", run, Lanes(executor))
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
