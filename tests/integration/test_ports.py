"""Who listens where: nobody answers for somebody else, and nothing is open that need not be."""

import pytest

from tests.integration.conftest import LiveService, Start

pytestmark = pytest.mark.ray


def test_two_services_on_one_machine_share_no_port(live_service: LiveService, start_service: Start) -> None:
    other = start_service()
    ports = [{socket.port for socket in service.listening()} for service in (live_service, other)]
    assert len(ports[0]) > 10 and len(ports[1]) > 10
    assert ports[0] & ports[1] == set()
    assert other.stop() == 0


def test_what_speaks_http_speaks_it_on_loopback(live_service: LiveService) -> None:
    sockets = live_service.listening()
    haproxy = [socket for socket in sockets if socket.title.startswith(("haproxy", "/")) and "haproxy" in socket.title]
    replicas = [socket for socket in sockets if 20_000 <= socket.port < 32_768]
    assert len(haproxy) >= 3  # the front door, its statistics, its metrics
    assert len(replicas) >= 3  # the model, the controller, the proxy behind HAProxy
    assert [socket for socket in (*haproxy, *replicas) if not socket.loopback] == []
