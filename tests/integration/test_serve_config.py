"""The Serve config of the Kubernetes manifest, applied to a local cluster: nobody has prepared the store."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.integration.conftest import START_LIMIT_S, LiveService, free_port

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
MODEL = "ray::ServeReplica:model:Model"
WITHOUT_CONTROL_S = 25.0
"""How long the first replicas wait for a controller: more than any replica waits for one that was there before."""


@dataclass
class Cluster:
    """A cluster that is given Serve configs, one after another."""

    service: LiveService
    config: dict[str, Any]

    def apply(self, *names: str, **copies: str) -> None:
        """Make the applications of these names the ones that run, and copies of one under a new name and route."""
        known = {application["name"]: application for application in self.config["applications"]}
        applications = [known[name] for name in names]
        applications += [known[of] | {"name": name, "route_prefix": f"/{name}"} for name, of in copies.items()]
        process = self.service.process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(self.config | {"applications": applications}).encode() + b"\n")
        process.stdin.flush()
        # Ray writes warnings of its own between our lines.
        assert b"applied\n" in iter(process.stdout.readline, b""), self.service.log.read_text()[-3000:]

    def status(self, path: str) -> int:
        """Return the status of a GET, 0 if there is no answer."""
        try:
            return httpx.get(self.service.url + path, timeout=5).status_code
        except httpx.TransportError:
            return 0

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once ``condition`` holds; fail with the log if it never does."""
        deadline = time.monotonic() + START_LIMIT_S
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"it did not come to that:\n{self.service.log.read_text()[-3000:]}")
            time.sleep(0.2)

    def wait_until_ready(self) -> None:
        """Return once both applications answer."""
        self.wait_until(lambda: self.status("/health") == self.status("/admin/health") == 200)


def config_of(model: Path, train: Path, evaluation: Path, store: Path) -> dict[str, Any]:
    """Return the manifest's Serve config for a tiny model and one replica on this machine."""
    documents = yaml.safe_load_all((ROOT / "deploy" / "kuberay" / "rayservice.yaml").read_text(encoding="utf-8"))
    manifest = next(document for document in documents if document["kind"] == "RayService")
    config: dict[str, Any] = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    config["proxy_location"] = "HeadOnly"
    config["http_options"] |= {"host": "127.0.0.1", "port": free_port()}
    for application in config["applications"]:
        application["args"] |= {
            "host": "127.0.0.1",
            "model": str(model),
            "train": str(train),
            "eval": str(evaluation),
            "store": str(store),
            "levels": "0,0.3,0.5",
            "replicas": 1,
        }
    return config


@pytest.fixture(scope="module")
def cluster(trained_model: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster to which nothing was applied yet; the store is empty."""
    store = tmp_path_factory.mktemp("configured")
    config = config_of(*trained_model, store)
    command = [sys.executable, str(Path(__file__).with_name("deploy_configs.py"))]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    log = store / "driver.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{config['http_options']['port']}"
    yield Cluster(LiveService(url, "", store, command, process, log, environment), config)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    try:
        process.wait(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


@pytest.fixture(scope="module")
def first_replicas(cluster: Cluster) -> list[int]:
    """The model replicas as they were when the controller was still missing; it has come since."""
    cluster.apply("model")
    cluster.wait_until(lambda: bool(cluster.service.processes(MODEL)))
    before = cluster.service.processes(MODEL)
    time.sleep(WITHOUT_CONTROL_S)
    cluster.apply("control", "model")
    cluster.wait_until_ready()
    cluster.service.admin_token = (cluster.service.store / "admin.token").read_text().strip()
    return before


def test_replicas_outlast_a_controller_that_takes_long_to_come_up_for_the_first_time(
    cluster: Cluster, first_replicas: list[int]
) -> None:
    assert cluster.service.processes(MODEL) == first_replicas
    assert cluster.service.ask().json()[0][0]["label"] == "positive"
    assert cluster.service.dial(0.3)["phase"] == "committed"


@pytest.mark.usefixtures("first_replicas")
def test_a_second_controller_of_the_same_store_stands_by_and_takes_over(cluster: Cluster) -> None:
    cluster.apply("control", "model", other="control")
    cluster.wait_until(lambda: cluster.status("/other/health") == 503)
    headers = {"authorization": f"Bearer {cluster.service.admin_token}"}
    refused = httpx.put(f"{cluster.service.url}/other/sparsity", headers=headers, json={"sparsity": 0.5})
    assert (refused.status_code, refused.json()["error_type"]) == (503, "unhealthy")
    assert "Another service controls this store" in refused.json()["detail"]
    assert cluster.service.dial(0.5)["phase"] == "committed"
    cluster.apply("model", other="control")
    cluster.wait_until(lambda: cluster.status("/other/health") == 200)
    taken = httpx.get(f"{cluster.service.url}/other/sparsity", headers=headers).json()
    assert taken["sparsity"] == 0.5
    cluster.apply("control", "model")
    cluster.wait_until_ready()


@pytest.mark.usefixtures("first_replicas")
def test_a_replica_born_without_a_controller_is_on_the_committed_variant(cluster: Cluster) -> None:
    committed = cluster.service.dial(0.3)
    assert committed["phase"] == "committed"
    cluster.apply("model")
    cluster.wait_until(lambda: cluster.status("/admin/health") != 200)
    (killed,) = cluster.service.processes(MODEL)
    os.kill(killed, signal.SIGKILL)
    cluster.wait_until(lambda: cluster.service.processes(MODEL) not in ([], [killed]))
    cluster.wait_until(lambda: cluster.status("/health") == 200)
    answer = cluster.service.ask()
    assert (answer.headers["x-variant"], answer.headers["x-generation"]) == (
        committed["variant"],
        str(committed["generation"]),
    )
    cluster.apply("control", "model")
    cluster.wait_until_ready()
    assert cluster.service.dial(0.5)["phase"] == "committed"
    assert cluster.service.ask().headers["x-generation"] == str(committed["generation"] + 1)
