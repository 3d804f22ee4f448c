import pytest

from loadtests.admin import AdminClient, service_facts
from loadtests.errors import AdminError
from loadtests.target import Target
from tests.loadtests.fake_service import LEVELS, TOKEN, FakeService


async def test_the_dial_turns_and_the_operation_is_told(service: FakeService) -> None:
    async with AdminClient(service.url, TOKEN) as admin:
        operation = await admin.dial(0.37)
    assert operation.committed
    assert operation.generation == service.generation == 2
    assert service.dials == [0.37]


async def test_an_operation_that_fails_is_no_error_but_says_why(service: FakeService) -> None:
    service.refused = {0.9}
    async with AdminClient(service.url, TOKEN) as admin:
        operation = await admin.dial(0.9)
    assert not operation.committed
    assert operation.generation is None
    assert operation.detail == "below the floor"


async def test_the_ladder_is_what_the_metrics_show_above_the_floor(service: FakeService) -> None:
    async with AdminClient(service.url, TOKEN) as admin:
        assert await admin.ladder() == list(LEVELS)


async def test_levels_built_before_are_known(service: FakeService) -> None:
    async with AdminClient(service.url, TOKEN) as admin:
        await admin.dial(0.37)
        assert await admin.known_levels() == {*LEVELS, 0.37}


async def test_the_committed_spec_can_be_put_back(service: FakeService) -> None:
    async with AdminClient(service.url, TOKEN) as admin:
        await admin.dial(0.37)
        assert (await admin.dial(**await admin.spec())).generation == 2


async def test_a_wrong_token_is_an_error_with_the_status(service: FakeService) -> None:
    async with AdminClient(service.url, "wrong") as admin:
        with pytest.raises(AdminError, match="answered 401"):
            await admin.known_levels()


async def test_no_service_is_an_error(unused_tcp_port: int) -> None:
    async with AdminClient(f"http://127.0.0.1:{unused_tcp_port}", TOKEN) as admin:
        with pytest.raises(AdminError, match="ClientConnectorError"):
            await admin.dial(0.5)


async def test_the_service_is_described_where_it_describes_itself(service: FakeService, unused_tcp_port: int) -> None:
    assert await service_facts(Target(url=service.url)) == {
        "service": "model_id fake-model, version 9.9, replicas 2, threads 1, torch 1.2"
    }
    assert await service_facts(Target(url=f"http://127.0.0.1:{unused_tcp_port}")) == {}
