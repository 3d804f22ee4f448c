import asyncio

import pytest

from service.deadlines import Deadline
from service.drain_rate import DrainRate
from service.errors import Overloaded, TooLarge
from tests.service.batcher_parts import BUDGET, QUEUE, Sequence_, bench, requests_of, settle


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


async def test_a_full_queue_is_refused_with_the_time_it_takes_to_drain() -> None:
    async with bench() as b:
        busy = b.send(0, 1)
        await settle()
        waiting = [b.send(request, 10) for request in range(1, 5)]
        await settle()
        b.room.rate = DrainRate()
        b.room.rate.record(tokens=8, arrived=0.0, end=1.0)
        with pytest.raises(Overloaded) as refused:
            await b.batcher.submit([Sequence_(9, 1)])
        assert refused.value.retry_after_s == 5
        await b.run_out()
        await asyncio.gather(busy, *waiting)


async def test_room_for_a_small_request_is_known_without_one() -> None:
    async with bench(queue_s=2.0) as b:
        b.room.rate.record(tokens=10, arrived=0.0, end=1.0)
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
        b.room.rate.record(tokens=15, arrived=0.0, end=1.0)
        assert b.batcher.queue_limit_tokens == 30
        b.room.rate = DrainRate()
        b.room.rate.record(tokens=1, arrived=0.0, end=1.0)
        assert b.batcher.queue_limit_tokens == BUDGET


async def test_how_fast_the_queue_drains_counts_from_the_moment_at_which_a_batch_began_to_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spans: list[tuple[float, float]] = []
    async with bench() as b:
        monkeypatch.setattr(b.room.rate, "record", lambda tokens, arrived, ended: spans.append((arrived, ended)))
        busy = b.send(0, 1)
        await settle()
        waiting = b.send(1, 1)
        await settle()
        await b.run_out()
        await asyncio.gather(busy, waiting)
    (_, first_ended), (second_arrived, _) = spans
    assert second_arrived < first_ended


async def test_what_counts_is_the_wait_before_a_request_and_not_its_own_length() -> None:
    async with bench(queue_s=2.0) as b:
        busy = b.send(0, 1)
        await settle()
        b.room.rate.record(tokens=10, arrived=0.0, end=1.0)
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
