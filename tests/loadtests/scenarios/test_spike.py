from dataclasses import replace
from pathlib import Path

import pytest

from loadtests import report
from loadtests.admin import AdminClient
from loadtests.errors import LoadTestError
from loadtests.options import LoadOptions
from loadtests.scenarios import spike
from loadtests.scenarios.spike import SpikeOptions
from tests.loadtests.fake_service import TOKEN, FakeService

SHORT = SpikeOptions(seconds=0.6, calm_s=0.3, recovery_s=0.6, target_ms=200.0, sparse=0.8)


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spike, "REST_S", 0.0)


@pytest.fixture
def limited(service: FakeService) -> FakeService:
    """A service with six places that answers about a hundred requests a second."""
    service.stall_s = lambda number: 0.01
    service.places = 6
    service.labels = True
    return service


async def test_every_contestant_meets_the_same_load_and_is_judged_by_the_same_target(
    limited: FakeService, options: LoadOptions, tmp_path: Path
) -> None:
    async with AdminClient(limited.url, TOKEN) as admin:
        result = await spike.run(replace(options, rate=100.0, share=0.4), admin, SHORT)
    assert result.held
    assert [phase.name for phase in result.phases[::3]] == ["dense, calm", "0.8, calm", "governor, calm"]
    assert {phase.requests for phase in result.phases[1::3]} == {result.phases[1].requests}
    figures = result.details["figures"]
    assert 0 < figures["dense"]["refused_share"] < 1
    assert (figures["dense"]["agreement"], figures["0.8"]["agreement"]) == (1.0, 0.0)
    assert figures["governor"]["sparsity"] > 0 and figures["dense"]["sparsity"] == 0
    assert figures["governor"]["back_on_dense_s"] is not None
    assert [goal.name for goal in result.goals][:2] == ["refused, governor / dense", "seconds until only dense answers"]
    page = report.write(result, tmp_path)
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


async def test_the_governor_begins_on_dense_and_what_was_there_before_is_there_afterwards(
    limited: FakeService, options: LoadOptions
) -> None:
    limited.sparsity, limited.policy = 0.3, {"mode": "auto", "slo_p99_ms": 77}
    async with AdminClient(limited.url, TOKEN) as admin:
        await spike.run(replace(options, rate=50.0), admin, SHORT)
    assert limited.dials == [0.0, 0.0, 0.8, 0.0, 0.3]
    modes = [change["mode"] for change in limited.policies]
    assert modes == ["manual", "manual", "manual", "manual", "auto", "manual", "auto"]
    assert limited.policy == {"mode": "auto", "slo_p99_ms": 77}


async def test_a_ladder_with_nothing_but_dense_cannot_be_compared(service: FakeService, options: LoadOptions) -> None:
    async with AdminClient(service.url, TOKEN) as admin:
        with pytest.raises(LoadTestError, match="but dense"):
            await spike.run(options, admin, replace(SHORT, sparse=0.0))
    assert not service.policies
