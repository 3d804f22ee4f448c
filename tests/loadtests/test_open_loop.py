import asyncio
from itertools import islice, pairwise

import pytest

from loadtests.client import LanePool
from loadtests.open_loop import Arrivals, Load, run_open_loop
from loadtests.options import LoadOptions
from loadtests.target import Target
from tests.loadtests.fake_service import FakeService

BODIES = [b"{}"]
STALL_S = 0.4


def test_the_same_seed_gives_the_same_send_times() -> None:
    assert list(Load(rate=50, duration_s=2, seed=3).times_s()) == list(Load(rate=50, duration_s=2, seed=3).times_s())
    assert list(Load(rate=50, duration_s=2, seed=3).times_s()) != list(Load(rate=50, duration_s=2, seed=4).times_s())


def test_poisson_arrivals_keep_the_rate_and_are_irregular() -> None:
    times = list(Load(rate=100, duration_s=100, seed=1).times_s())
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.01, rel=0.05)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.1)


def test_constant_arrivals_are_evenly_spaced() -> None:
    times = Load(rate=4, duration_s=10, arrivals=Arrivals.CONSTANT).times_s()
    assert list(islice(times, 4)) == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_a_load_is_bounded_in_time_and_in_count() -> None:
    assert max(Load(rate=1000, duration_s=0.5).times_s()) <= 0.5
    assert len(list(Load(rate=1000, duration_s=1e9, max_requests=10).times_s())) == 10


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"duration_s": -1}, {"max_requests": 0}])
def test_a_load_without_end_or_rate_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Load(**{"rate": 1, "duration_s": 1, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("connections", [1, 64])
async def test_a_stall_shows_in_every_request_that_was_due_in_it(service: FakeService, connections: int) -> None:
    service.stall_s = lambda number: STALL_S if number == 20 else 0.0
    load = Load(rate=100, duration_s=1.0, arrivals=Arrivals.CONSTANT)
    async with LanePool(Target(url=service.url), size=connections) as pool:
        replies = await run_open_loop(pool, BODIES, load)
    slow = [reply for reply in replies if reply.latency_s > STALL_S / 2]
    # Of the 40 requests due in the stall half waited for more than half of it, though the server was slow once.
    assert len(slow) >= 20
    if connections == 1:
        assert len([reply for reply in replies if reply.done_s - reply.sent_s > STALL_S / 2]) < len(slow)


async def test_every_reply_says_what_came_back(service: FakeService) -> None:
    service.status_of = lambda number: 503 if number == 3 else 200
    service.generation, service.sparsity = 7, 0.4321
    async with LanePool(Target(url=service.url), size=1) as pool:
        replies = await run_open_loop(pool, BODIES, Load(rate=500, duration_s=60, max_requests=10))
    assert [reply.status for reply in replies] == [200] * 3 + [503] + [200] * 6
    assert [reply.failed for reply in replies].count(True) == 1
    assert {(reply.generation, reply.sparsity) for reply in replies} == {(7, 0.4321)}
    assert {reply.connection for reply in replies} == {0}
    assert [reply.index for reply in replies] == list(range(10))
    assert all(reply.intended_s <= reply.sent_s <= reply.done_s for reply in replies)


async def test_a_peer_that_does_not_listen_is_a_failed_request_and_not_an_error(unused_tcp_port: int) -> None:
    async with LanePool(Target(url=f"http://127.0.0.1:{unused_tcp_port}")) as pool:
        replies = await run_open_loop(pool, BODIES, Load(rate=100, duration_s=1, max_requests=3))
    assert [(reply.status, reply.error) for reply in replies] == [(0, "ClientConnectorError")] * 3


async def test_a_request_that_takes_too_long_is_a_failed_request(service: FakeService) -> None:
    service.stall_s = lambda number: 0.5
    async with LanePool(Target(url=service.url), timeout_s=0.1) as pool:
        replies = await run_open_loop(pool, BODIES, Load(rate=100, duration_s=1, max_requests=1))
    assert [(reply.status, reply.failed) for reply in replies] == [(0, True)]


async def test_a_load_stops_when_told_and_answers_what_was_due(options: LoadOptions) -> None:
    stop = asyncio.Event()
    async with options.pool() as pool:
        load = asyncio.create_task(run_open_loop(pool, BODIES, Load(rate=200, duration_s=600), stop=stop))
        await asyncio.sleep(0.1)
        stop.set()
        replies = await load
    assert replies and not any(reply.failed for reply in replies)
