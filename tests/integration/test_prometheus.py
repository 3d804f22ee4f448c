"""A real Prometheus with the committed job and rules, pointed at a real service."""

import itertools
import math
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from tests.deploy.dashboards import ROOT, queries, substituted

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
]

WAIT_S = 90.0
WINDOW = "20s"
"""What Grafana makes of $__rate_interval: four scrapes."""
OF_FULL_LANES = "sparsedial_governor_capacity_tokens_per_second"
"""Known once a model's lanes have been full, which nobody here sees to."""


class LiveService(Protocol):
    url: str
    admin_token: str


class Prometheus:
    """A running server and its query API."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query that are numbers."""
        answer = self._client.get("/api/v1/query", params={"query": expr}).json()
        assert answer["status"] == "success", f"{expr}: {answer}"
        return [sample for sample in answer["data"]["result"] if not math.isnan(float(sample["value"][1]))]

    def rule_health(self) -> dict[str, str]:
        groups = self._client.get("/api/v1/rules").json()["data"]["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}


class Operator:
    """Someone who uses the service and turns its dial, so that there is something to see."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def targets(self) -> set[str]:
        return {group["labels"]["replica"] for group in self._client.get("/admin/prometheus/targets").json()}

    def levels(self) -> list[float]:
        levels = self._client.get("/admin/frontier").json()["levels"]
        return sorted({level["requested_sparsity"] for level in levels})

    def spec(self) -> dict[str, Any]:
        state = self._client.get("/admin/sparsity").json()
        return {member: state[member] for member in ("sparsity", "pattern", "scorer", "recover", "precision")}

    def dial(self, spec: dict[str, Any]) -> None:
        answer = self._client.put("/admin/sparsity", params={"wait": 60}, json=spec)
        assert answer.status_code == 200, answer.text

    def ask(self, count: int) -> None:
        for _ in range(count):
            answer = self._client.post("/predict", json={"inputs": "The food was good."})
            assert answer.status_code == 200, answer.text
            truth = {"request_id": answer.headers["x-request-id"], "label": answer.json()[0]["label"]}
            assert self._client.post("/v1/feedback", json=truth).status_code == 200

    def some_cascade(self) -> dict[str, float]:
        """Return a cascade as a policy names it."""
        row = self._client.get("/admin/frontier").json()["cascades"][-1]
        return {"sparsity": row["requested_sparsity"], "agreement": row["agreement_target"]}

    def policy(self, **members: Any) -> dict[str, Any]:
        """Set members of the policy; return what they were before."""
        before = self._client.get("/admin/policy").json()
        answer = self._client.put("/admin/policy", json=members)
        assert answer.status_code == 200, answer.text
        return {member: before[member] for member in members}


@contextmanager
def running_prometheus(config: Path, folder: Path) -> Iterator[Prometheus]:
    """Start a server on a free loopback port; end it, by its own process, whatever happens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log, cwd=folder)
    try:
        with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=10) as client:
            server = Prometheus(client)
            until(lambda: server.ready() or process.poll() is not None)
            assert process.poll() is None, (folder / "prometheus.log").read_text(encoding="utf-8")
            yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(condition: Callable[[], bool]) -> None:
    """Return once ``condition`` holds, or when it has had its time: the caller asserts what must be."""
    deadline = time.monotonic() + WAIT_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)


@pytest.fixture
def operator(live_service: LiveService) -> Iterator[Operator]:
    """An operator who leaves the dial where it was."""
    bearer = {"authorization": f"Bearer {live_service.admin_token}"}
    with httpx.Client(base_url=live_service.url, headers=bearer, trust_env=False, timeout=90) as client:
        operator = Operator(client)
        before = operator.spec()
        yield operator
        operator.dial(before)


@pytest.fixture
def prometheus(live_service: LiveService, tmp_path: Path) -> Iterator[Prometheus]:
    folder = tmp_path / "prometheus"
    shutil.copytree(ROOT / "deploy" / "prometheus", folder)
    config = folder / "prometheus.yml"
    committed = config.read_text(encoding="utf-8")
    assert committed.count("http://127.0.0.1:8000/") == 1
    config.write_text(committed.replace("http://127.0.0.1:8000/", f"{live_service.url}/"), encoding="utf-8")
    with running_prometheus(config, folder) as server:
        yield server


def test_prometheus_sees_every_replica_and_every_panel_has_data(prometheus: Prometheus, operator: Operator) -> None:
    expected = operator.targets()
    assert "control" in expected and len(expected) >= 2

    def up() -> dict[str, str]:
        return {sample["metric"]["replica"]: sample["value"][1] for sample in prometheus.query('up{job="sparsedial"}')}

    until(lambda: up() == dict.fromkeys(expected, "1"))
    assert up() == dict.fromkeys(expected, "1")

    before = operator.policy(shadow_fraction=1.0, slo_p99_ms=60_000.0, mode="manual", cascade=None)
    cascade = operator.some_cascade()
    lowest, second, *_ = operator.levels()
    new_level = round((lowest + second) / 2, 3)
    waiting = {query.expr: query.panel for query in queries() if OF_FULL_LANES not in query.expr}
    deadline = time.monotonic() + WAIT_S
    for turn, level in enumerate(itertools.cycle((new_level, lowest, second))):
        if turn % 2:  # the governor has its turns too, and takes an odd level for one of the ladder's
            operator.policy(mode="auto", cascade=None)
        else:
            operator.policy(mode="manual", cascade=cascade)
            operator.dial({"sparsity": level})
        operator.ask(20)
        waiting = {
            expr: panel for expr, panel in waiting.items() if not prometheus.query(substituted(expr, window=WINDOW))
        }
        if not waiting or time.monotonic() > deadline:
            break
        time.sleep(3)
    operator.policy(**before)
    assert waiting == {}

    until(lambda: set(prometheus.rule_health().values()) == {"ok"})
    assert set(prometheus.rule_health().values()) == {"ok"}, prometheus.rule_health()
