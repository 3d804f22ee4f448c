"""Replicas on two nodes of a cluster that was there: they follow one controller, and one node may be lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.integration.conftest import LiveService, Start, descendants
from tests.integration.test_many_replicas import MODEL, generations, until
from tests.integration.test_service import Traffic

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

Cluster = subprocess.Popen[bytes]
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    command = [sys.executable, str(Path(__file__).with_name("two_nodes.py"))]
    with (tmp_path / "cluster.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    yield process
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    try:
        process.wait(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        process.stdout.close()


def said(cluster: Cluster, word: str) -> str:
    """Return what the cluster says after ``word``; Ray writes lines of its own between."""
    assert cluster.stdout is not None
    for line in iter(cluster.stdout.readline, b""):
        if line.decode().startswith(word):
            return line.decode().removeprefix(word).strip()
    pytest.fail(f"the cluster ended before it said {word!r}")


def nodes_of_replicas(cluster: Cluster) -> set[int]:
    """The node, by its raylet's process, of every model replica."""
    replicas = [pid for pid, title in descendants(cluster.pid) if title.startswith(MODEL)]
    return {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in replicas}


def test_replicas_on_two_nodes_are_one_service_and_outlive_the_loss_of_one(
    cluster: Cluster, start_service: Start
) -> None:
    address = said(cluster, "address")
    service = start_service(None, "--address", address, "--replicas", "2", "--ingress", "proxy", **ENVIRONMENT)
    until(lambda: len(nodes_of_replicas(cluster)) == 2)
    swap_everywhere(service, 0.3)
    swap_everywhere(service, 0.5)
    assert cluster.stdin is not None
    running = service.admin("PUT", "/sparsity", json={"sparsity": 0.42}).json()
    cluster.stdin.write(b"lose a node\n")
    cluster.stdin.flush()
    said(cluster, "lost")
    until(lambda: phase_of(service, running["id"]) == "committed")  # the controller may have been on that node
    committed = service.dial(0.42)
    assert (committed["id"], committed["phase"]) == (running["id"], "committed")
    until(lambda: generations(service) == [committed["generation"]] * 2)
    assert {service.ask().headers["x-variant"] for _ in range(10)} == {committed["variant"]}
    swap_everywhere(service, 0.0)
    assert service.stop() == 0


def phase_of(service: LiveService, operation_id: str) -> str:
    """Where an operation stands; nowhere while nobody tells."""
    with suppress(httpx.TransportError):
        answer = service.admin("GET", f"/operations/{operation_id}")
        if answer.status_code == 200:
            return str(answer.json()["phase"])
    return ""


def swap_everywhere(service: LiveService, sparsity: float) -> None:
    """Turn the dial under traffic: nothing fails, and every replica is there when it returns."""
    with Traffic(service) as traffic:
        committed = service.dial(sparsity)
        assert generations(service) == [committed["generation"]] * 2
    assert traffic.failed == []
    assert traffic.generations == sorted(traffic.generations)
