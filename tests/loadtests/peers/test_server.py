import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.peers.process import PeerError, Process
from loadtests.peers.server import Server
from loadtests.target import Target
from tests.loadtests.fake_service import TOKEN, FakeService
from tests.loadtests.peers.contestants import contestant


@pytest.fixture
def server(service: FakeService, tmp_path: Path) -> Iterator[Server]:
    command = (sys.executable, "-c", "import time; time.sleep(300)")
    with Process(command, folder=tmp_path, environment=dict(os.environ), log=tmp_path / "log") as process:
        yield Server(
            contestant=contestant("one"),
            target=Target(url=service.url),
            process=process,
            start_s=0.0,
            token=TOKEN,
            timeout_s=5.0,
        )


async def test_the_dial_is_turned_before_the_reading(server: Server, service: FakeService) -> None:
    await server.dial(0.5)
    assert service.dials == [0.5] and service.sparsity == 0.5


async def test_a_level_that_is_not_committed_cannot_be_read(server: Server, service: FakeService) -> None:
    service.refused = {0.8}
    with pytest.raises(PeerError, match="failed below the floor"):
        await server.dial(0.8)


async def test_an_admin_api_that_refuses_is_told(server: Server, service: FakeService) -> None:
    object.__setattr__(server, "token", "wrong")
    with pytest.raises(PeerError, match="answered 401"):
        await server.dial(0.5)


async def test_an_answer_without_labels_is_told(server: Server) -> None:
    with pytest.raises(PeerError, match="0 labels for 1 texts"):
        await server.labels(["fine"])


def test_a_server_that_ended_by_itself_is_told(server: Server) -> None:
    server.check()
    server.process.stop()
    with pytest.raises(PeerError, match="ended by itself: it printed nothing"):
        server.check()
