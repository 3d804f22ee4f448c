import math
from collections.abc import Iterator
from dataclasses import replace

import pytest

from loadtests.options import LoadOptions
from loadtests.phases import Window
from loadtests.scenarios import overload
from loadtests.scenarios.overload import OverloadOptions, refused_and_excess, seconds_to_steady
from tests.loadtests.fake_service import FakeService
from tests.loadtests.replies import reply

SHORT = OverloadOptions(factor=2.0, seconds=0.6, calm_s=0.3, recovery_s=0.4, window_s=0.1)


@pytest.fixture
def limited(service: FakeService) -> FakeService:
    """A service with six places that answers about a hundred requests a second."""
    service.stall_s = lambda number: 0.01
    service.places = 6
    return service


async def test_a_service_that_refuses_the_excess_holds_every_law(limited: FakeService, options: LoadOptions) -> None:
    result = await overload.run(replace(options, rate=100.0), SHORT)
    assert result.held
    assert [phase.name for phase in result.phases] == ["calm", "overload", "after"]
    assert 0 < result.details["refused_share"] < 1
    assert result.phases[1].offered_rate == 200.0
    assert set(result.details["resident_bytes"].values()) == {1_000_000}


async def test_a_refusal_without_retry_after_breaks_the_run(limited: FakeService, options: LoadOptions) -> None:
    limited.retry_after = None
    result = await overload.run(replace(options, rate=100.0), SHORT)
    assert [law.name for law in result.laws if not law.held] == ["every 429 has Retry-After"]


async def test_an_error_under_overload_breaks_the_run(limited: FakeService, options: LoadOptions) -> None:
    limited.status_of = lambda number: 500 if number == 40 else 200
    result = await overload.run(replace(options, rate=100.0), SHORT)
    assert [law.name for law in result.laws if not law.held] == ["every request answered or refused"]


async def test_memory_that_grows_while_the_queue_is_full_misses_its_goal(
    service: FakeService, options: LoadOptions
) -> None:
    sizes: Iterator[int] = iter([100, 1000, 2000, 2000])
    service.resident_bytes = lambda: next(sizes)
    result = await overload.run(replace(options, rate=100.0), SHORT)
    memory = result.goals[-1]
    assert (memory.value, memory.met) == (2.0, False)


async def test_the_capacity_is_measured_where_no_rate_is_given(service: FakeService, options: LoadOptions) -> None:
    service.stall_s = lambda number: 0.002
    result = await overload.run(replace(options, rate=None, connections=8), replace(SHORT, factor=0.5))
    assert "256 clients" in result.facts["capacity"]


def test_shares_count_from_the_first_refusal() -> None:
    filling = [reply(intended_s=second) for second in (0.0, 1.0, 2.0, 3.0)]
    full = [reply(intended_s=4 + number / 2, status=429 if number % 2 == 0 else 200) for number in range(8)]
    refused, excess = refused_and_excess([*filling, *full], Window(start_s=0.0, end_s=8.0), capacity=1.0)
    assert (refused, excess) == (0.5, 0.5)
    assert refused_and_excess(filling, Window(start_s=0.0, end_s=4.0), capacity=0.5) == (0.0, 0.5)


def test_it_answers_as_before_from_the_first_span_without_failures_or_slow_answers() -> None:
    spans = replace(SHORT, recovery_s=4.0, window_s=1.0)
    failing = [reply(intended_s=10.0, done_s=10.1, status=429), reply(intended_s=10.5, done_s=10.6)]
    slow = [reply(intended_s=11.0 + number / 10, done_s=13.0) for number in range(3)]
    good = [reply(intended_s=12.0, done_s=12.1), reply(intended_s=12.5, done_s=12.6), reply(intended_s=12.6, done_s=14)]
    assert seconds_to_steady([*failing, *slow, *good], 10.0, 0.2, spans) == 2.0
    assert seconds_to_steady([*failing, *slow], 10.0, 0.2, spans) == math.inf
