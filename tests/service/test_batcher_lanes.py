import asyncio

import pytest

from service.errors import InferenceFailed
from service.lanes import Lanes
from service.queued import Answered
from tests.service.batcher_parts import Model, Sequence_, bench, requests_of, roomy, settle


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


@pytest.mark.parametrize("cores", [1, 3])
async def test_real_threads_answer_a_hundred_requests_each_with_its_own_rows(cores: int) -> None:
    lanes = Lanes.start(cores, side_by_side=True)
    batcher = roomy(lambda choice: 0, Model(), lanes)
    batcher.start()
    answers = await asyncio.gather(*(batcher.submit([Sequence_(i, 1 + i % 7)]) for i in range(100)))
    await batcher.stop()
    lanes.close()
    assert [answered.rows[0][1].request for answered in answers] == list(range(100))
