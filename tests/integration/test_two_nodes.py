"""Replicas on two nodes of a cluster that was there: they are one service, and one node may be lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import LiveService, Start, descendants
from tests.integration.test_many_replicas import MODEL, ask_batch, generations, scores_of, until
from tests.integration.test_service import Traffic

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

BUILT_S = 300.0
"""A wait for a build, which other work on the processor keeps waiting."""
CONTROL = "ray::ServeReplica:control:Control"
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5",
    # A node that refuses connections is taken for lost within seconds.
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
}


class Cluster:
    """A head, and two nodes that compute."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.address = self._said("address")

    def lose(self, node: int) -> None:
        self._tell(f"lose {node}")

    def add_a_node(self) -> None:
        self._tell("add")

    def nodes_of(self, title: str) -> set[int]:
        """The node, by its raylet's process, of every process with a title that begins so."""
        found = [pid for pid, name in descendants(self._process.pid) if name.startswith(title)]
        return {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in found}

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())
        self._process.stdin.flush()
        self._said("done")

    def _said(self, word: str) -> str:
        """Return what the cluster says after ``word``; Ray writes lines of its own between."""
        assert self._process.stdout is not None
        for line in iter(self._process.stdout.readline, b""):
            if line.decode().startswith(word):
                return line.decode().removeprefix(word).strip()
        pytest.fail(f"the cluster ended before it said {word!r}")


@contextmanager
def two_nodes(log: Path) -> Iterator[Cluster]:
    """Run a cluster for the block."""
    command = [sys.executable, str(Path(__file__).with_name("two_nodes.py"))]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            start_new_session=True,
        )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield Cluster(process)
        process.stdin.close()
        assert process.wait(timeout=90) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):
                stream.close()


def test_replicas_on_two_nodes_are_one_service_and_outlive_the_loss_of_one(
    tmp_path: Path, start_service: Start
) -> None:
    with two_nodes(tmp_path / "cluster.log") as cluster:
        there = "--address", cluster.address, "--replicas", "2", "--replicas-per-node", "1", "--ingress", "proxy"
        service = start_service(None, *there, **ENVIRONMENT)
        until(lambda: len(generations(service)) == len(cluster.nodes_of(MODEL)) == 2)
        whole = {}
        for sparsity in (0.3, 0.5):
            committed = swap_under_traffic(service, sparsity)
            whole[committed["variant"]] = scores_of(ask_batch(service, {}))
        for sparsity in (0.3, 0.5):
            running = service.admin("PUT", "/sparsity", json={"sparsity": sparsity}).json()
            while operation(service, running["id"])["phase"] != "committed":
                check_whole(service, whole)
        check_whole(service, whole)

        running = service.admin("PUT", "/sparsity", json={"sparsity": 0.42}).json()
        cluster.lose(*cluster.nodes_of(CONTROL))
        until(lambda: operation(service, running["id"]).get("phase") == "committed", BUILT_S)
        assert generations(service) == [operation(service, running["id"])["generation"]]
        committed = swap_under_traffic(service, 0.3)
        cluster.add_a_node()
        until(lambda: generations(service) == [committed["generation"]] * 2)
        assert len(cluster.nodes_of(MODEL)) == 2
        answers: list[httpx.Response] = []
        until(lambda: (answers.append(service.ask()), all_well(answers[-10:]))[1])
        assert {answer.headers["x-variant"] for answer in answers if answer.is_success} == {committed["variant"]}
        assert service.stop() == 0


def check_whole(service: LiveService, whole: dict[str, list[float]]) -> None:
    """Texts of one request are answered by the one variant that it names; a connection each, so that both are asked."""
    for _ in range(4):
        answer = ask_batch(service, {})
        assert scores_of(answer) == pytest.approx(whole[answer.headers["x-variant"]], abs=1e-4)


def all_well(answers: list[httpx.Response]) -> bool:
    """Tell whether these are ten answers and no refusal: the proxy of a node that joins knows no route at first."""
    return len(answers) == 10 and all(answer.is_success for answer in answers)


def operation(service: LiveService, operation_id: str) -> dict[str, Any]:
    """An operation; nothing while nobody tells: the controller was on the node that is gone."""
    with suppress(httpx.TransportError):
        answer = service.admin("GET", f"/operations/{operation_id}")
        if answer.status_code == 200:
            return dict(answer.json())
    return {}


def swap_under_traffic(service: LiveService, sparsity: float) -> dict[str, str]:
    """Turn the dial under traffic: nothing fails, and every replica is there when it returns."""
    with Traffic(service) as traffic:
        committed = service.dial(sparsity)
        assert set(generations(service)) == {committed["generation"]}
    assert traffic.failed == []
    assert traffic.generations == sorted(traffic.generations)
    return committed
