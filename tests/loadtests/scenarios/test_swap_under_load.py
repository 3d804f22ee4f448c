from dataclasses import replace

import pytest

from loadtests.admin import AdminClient
from loadtests.errors import LoadTestError
from loadtests.options import LoadOptions
from loadtests.result import Result
from loadtests.scenarios import swap_under_load
from loadtests.scenarios.swap_under_load import SwapOptions
from tests.loadtests.fake_service import LEVELS, TOKEN, FakeService

SHORT = SwapOptions(swaps=6, steady_s=0.3, warm_up_s=0.05, pause_s=0.05, margin_s=0.02, settle_s=0.0, max_seconds=30.0)


async def run(service: FakeService, options: LoadOptions, swapping: SwapOptions = SHORT) -> Result:
    async with AdminClient(service.url, TOKEN) as admin:
        return await swap_under_load.run(options, admin, swapping)


async def test_a_faithful_service_holds_every_law(service: FakeService, options: LoadOptions) -> None:
    service.sparsity = 0.5
    result = await run(service, options)
    assert result.held
    assert [law.broken for law in result.laws] == [0, 0, 0]
    # The start level, six swaps, two levels of the ladder before each of seven readings, and what was there before.
    assert len(service.dials) == 1 + 6 + 14 + 1
    assert service.dials[0] == 0.0
    assert service.dials[-1] == service.sparsity == 0.5
    assert [swap["kind"] for swap in result.details["swaps"]].count("ladder") == 3
    assert [phase.name for phase in result.phases] == [
        "steady",
        "swap windows",
        "swap windows, ladder",
        "swap windows, new",
        "between swaps",
    ]
    assert all(swap["first_answer_s"] > 0 for swap in result.details["swaps"])
    at = range(3, 21, 3)
    assert [service.dials[index] for index in at] == [swap["sparsity"] for swap in result.details["swaps"]]
    assert all(service.dials[index] != service.dials[index - 1] for index in at)  # every swap is a real one
    assert {*service.dials[1:3], *service.dials[19:21]} <= set(LEVELS)


async def test_the_windows_are_held_against_the_steady_load_and_against_the_pauses_between_them(
    service: FakeService, options: LoadOptions
) -> None:
    result = await run(service, options)
    steady, windows, *_, between = (phase.latency.quantile(0.99) for phase in result.phases)
    assert [goal.value for goal in result.goals[:2]] == [windows / steady, windows / between]


async def test_memory_that_grows_from_swap_to_swap_misses_its_goal(service: FakeService, options: LoadOptions) -> None:
    flat = await run(service, options)
    service.dials.clear()
    service.resident_bytes = lambda: len(service.dials) * 1_000_000
    grown = await run(service, options)
    assert [result.goals[2].value for result in (flat, grown)] == [1.0, 3.5]
    assert [result.goals[2].met for result in (flat, grown)] == [True, False]
    assert grown.details["resident_bytes"] == {str(swaps): 3 * (1 + swaps) * 1_000_000 for swaps in range(7)}


async def test_the_share_of_swaps_to_new_levels_is_as_asked(service: FakeService, options: LoadOptions) -> None:
    await run(service, options, replace(SHORT, new_share=0.0))
    assert set(service.dials) <= set(LEVELS)
    with pytest.raises(LoadTestError, match=r"must lie in \[0, 1\]; got 1.5"):
        await run(service, options, replace(SHORT, new_share=1.5))


async def test_a_failed_request_breaks_the_run(service: FakeService, options: LoadOptions) -> None:
    service.status_of = lambda number: 500 if number == 40 else 200
    result = await run(service, options)
    assert not result.held
    assert {law.name: law.broken for law in result.laws}["no failed request"] == 1


async def test_a_generation_that_goes_back_breaks_the_run(service: FakeService, options: LoadOptions) -> None:
    service.generation_of = lambda number: service.generation - (1 if number == 30 else 0)
    result = await run(service, replace(options, connections=1))
    broken = {law.name: law.broken for law in result.laws}
    assert broken["generation never goes back on a connection"] == 1


async def test_a_swap_that_does_not_commit_breaks_the_run(service: FakeService, options: LoadOptions) -> None:
    service.refused = {0.3, 0.5, 0.8}
    result = await run(service, options)
    law = result.laws[2]
    assert not law.held
    assert "below the floor" in law.detail


async def test_a_load_that_ends_too_soon_is_told(service: FakeService, options: LoadOptions) -> None:
    result = await run(service, options, replace(SHORT, max_seconds=0.1))
    assert "only 0 of 6 swaps" in result.laws[2].detail


async def test_levels_above_the_limit_are_left_out(service: FakeService, options: LoadOptions) -> None:
    await run(service, options, replace(SHORT, max_sparsity=0.4))
    assert max(service.dials) <= 0.4


async def test_a_limit_that_leaves_one_level_is_refused(service: FakeService, options: LoadOptions) -> None:
    with pytest.raises(LoadTestError, match="two levels"):
        await run(service, options, replace(SHORT, max_sparsity=0.2))


async def test_what_is_sent_while_memory_is_read_counts_for_no_phase(
    service: FakeService, options: LoadOptions
) -> None:
    between = (await run(service, options, replace(SHORT, settle_s=0.2))).phases[-1]
    assert between.requests < 1.5 * options.rate * between.seconds
