import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InferenceFailed, Overloaded
from service.queued import Answered
from tests.service.batcher_parts import BUDGET, QUEUE, bench, requests_of, settle

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
                full = side_by_side == max(1, narrow) or b.batcher._schedule.wide
                assert b.batcher.queue_tokens == 0 or full or b.batcher._waits_for_more()
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
