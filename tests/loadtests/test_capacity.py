import pytest

from loadtests import capacity
from loadtests.capacity import closed_loop, probe_capacity
from loadtests.client import LanePool
from loadtests.errors import LoadTestError
from loadtests.target import Target
from tests.loadtests.fake_service import FakeService


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "WARM_UP_S", 0.05)


async def test_a_closed_loop_never_has_more_requests_than_clients(service: FakeService) -> None:
    async with LanePool(Target(url=service.url), size=10) as pool:
        replies = await closed_loop(pool, [b"{}"], clients=3, seconds=0.2)
    assert len({reply.connection for reply in replies}) <= 3
    assert service.answered == len(replies)


async def test_the_capacity_is_no_more_than_the_server_can_give(service: FakeService) -> None:
    service.stall_s = lambda number: 0.01
    found = await probe_capacity(Target(url=service.url), [b"{}"], seconds=0.3, concurrencies=(1, 4))
    assert 0 < found.rate <= 100
    assert found.rates[found.concurrency] == found.rate


async def test_a_service_that_only_refuses_has_no_capacity(service: FakeService) -> None:
    service.status_of = lambda number: 503
    with pytest.raises(LoadTestError, match="seen: 503"):
        await probe_capacity(Target(url=service.url), [b"{}"], seconds=0.05, concurrencies=(1,))
