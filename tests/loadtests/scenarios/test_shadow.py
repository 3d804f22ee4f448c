from dataclasses import replace

import pytest

from loadtests.admin import AdminClient
from loadtests.errors import LoadTestError
from loadtests.result import Result
from loadtests.scenarios import shadow
from loadtests.scenarios.shadow import ShadowOptions
from loadtests.target import Target
from tests.loadtests.fake_service import TOKEN, FakeService

ROWS = [(f"text {number}", "good" if number % 4 else "bad") for number in range(40)]
ASKED = ShadowOptions(texts=ROWS, level=0.5, limit_s=0.5)


@pytest.fixture
def disagreeing(service: FakeService) -> FakeService:
    """A service whose sparse levels call every fifth text bad; the dense one calls all good."""
    service.label_of = lambda text, sparsity: "bad" if sparsity and int(text.split()[1]) % 5 == 0 else "good"
    return service


async def run(service: FakeService, shadowing: ShadowOptions = ASKED) -> Result:
    async with AdminClient(service.url, TOKEN) as admin:
        return await shadow.run(Target(url=service.url), admin, shadowing)


async def test_what_is_counted_online_is_what_is_counted_offline(disagreeing: FakeService) -> None:
    disagreeing.sparsity = 0.3
    disagreeing.counts["variant-0.5"].update(texts=10, agreed=1, labelled=5)  # of traffic before
    before = dict(disagreeing.policy)
    result = await run(disagreeing)
    assert result.held, [law.detail for law in result.laws]
    assert result.details["online"] == {"texts": 40, "agreed": 32, "labelled": 40, "right": 26}
    assert result.details["offline"] == {"texts": 40, "agreed": 32, "right": 26}
    assert disagreeing.policy == before
    assert disagreeing.sparsity == 0.3


async def test_dropped_shadow_answers_leave_a_wider_interval(
    disagreeing: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "DROPPED_S", 0.1)
    disagreeing.compares = lambda number: number % 2 == 0
    result = await run(disagreeing, replace(ASKED, limit_s=0.1))
    assert result.held
    assert result.details["online"]["texts"] == 20


async def test_counts_that_are_not_the_clients_break_the_run(disagreeing: FakeService) -> None:
    honest = disagreeing.label_of
    seen: set[str] = set()

    def moody(text: str, sparsity: float) -> str:
        """Answer live traffic otherwise than whoever asks by name, later."""
        again = sparsity > 0.0 and text in seen
        seen.update({text} if sparsity else set())
        return "good" if again else ("bad" if sparsity else honest(text, sparsity))

    disagreeing.label_of = moody
    result = await run(disagreeing)
    assert {law.name for law in result.laws if not law.held} == {"the online interval holds the offline agreement"}


async def test_nothing_compared_is_no_agreement(disagreeing: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "DROPPED_S", 0.1)
    disagreeing.compares = lambda number: False
    result = await run(disagreeing, replace(ASKED, limit_s=0.1))
    assert not result.held


async def test_a_level_that_is_refused_is_told_and_the_policy_put_back(disagreeing: FakeService) -> None:
    before = dict(disagreeing.policy)
    disagreeing.refused = {0.5}
    with pytest.raises(LoadTestError, match="below the floor"):
        await run(disagreeing)
    assert disagreeing.policy == before
