"""The whole service over HTTP, as its users meet it."""

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.conftest import LiveService, Start, free_port

pytestmark = pytest.mark.ray


class Traffic:
    """Requests on one connection, one after another, until told to stop.

    A connection that is closed before the answer begins is opened anew and the request sent once more, as clients of
    keep-alive connections do: the load balancer closes its connections when the set of replicas changes.
    """

    def __init__(self, service: LiveService, *, texts: int = 1, pause_s: float = 0.0) -> None:
        self._url = service.url
        self._inputs = ["we liked the warm food"] * texts
        self._pause_s = pause_s
        self._stop = threading.Event()
        self.answers: list[tuple[int, int]] = []
        """(status, generation), in order; -1 for a request that got no answer at the second try either."""
        self.reconnects = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._stop.wait(self._pause_s):
                try:
                    self.answers.append(self._ask(client))
                except httpx.TransportError:
                    self.reconnects += 1
                    try:
                        self.answers.append(self._ask(client))
                    except httpx.TransportError:
                        self.answers.append((-1, -1))

    def _ask(self, client: httpx.Client) -> tuple[int, int]:
        answer = client.post(self._url, json={"inputs": self._inputs})
        return answer.status_code, int(answer.headers.get("x-generation", -1))

    @property
    def failed(self) -> list[tuple[int, int]]:
        return [answer for answer in self.answers if answer[0] != 200]

    @property
    def generations(self) -> list[int]:
        return [generation for status, generation in self.answers if status == 200]


def test_an_answer_carries_what_gave_it_and_how_long_it_took(live_service: LiveService) -> None:
    answer = live_service.ask("a good film")
    assert answer.status_code == 200
    [[first, second]] = answer.json()
    assert first["label"] == "positive" and first["score"] > second["score"]
    for header in ("x-request-id", "x-generation", "x-variant", "x-sparsity", "x-tokenization-time", "x-queue-time"):
        assert answer.headers[header]
    assert float(answer.headers["x-total-time"]) >= float(answer.headers["x-inference-time"]) > 0


def test_an_answer_names_its_request_once(live_service: LiveService) -> None:
    assert_each_answer_names_its_request_once(live_service)


def assert_each_answer_names_its_request_once(service: LiveService) -> None:
    for path in ("/health", "/nowhere", "/admin/health", "/admin/sparsity"):
        given = httpx.get(service.url + path, headers={"x-request-id": "mine-1"})
        assert given.headers.get_list("x-request-id") == ["mine-1"], path
        made = httpx.get(service.url + path)
        assert len(made.headers.get_list("x-request-id")) == 1, path
        if made.status_code >= 400:
            assert made.json()["request_id"] == made.headers["x-request-id"]


def test_a_swap_under_traffic_fails_nothing_and_never_goes_back(live_service: LiveService) -> None:
    with Traffic(live_service) as traffic:
        for sparsity in (0.3, 0.5, 0.45, 0.0):  # 0.45 is on no ladder: it is built now
            operation = live_service.dial(sparsity)
            assert operation["phase"] == "committed", operation
            answer = live_service.ask()
            assert int(answer.headers["x-generation"]) == operation["generation"]
            assert abs(float(answer.headers["x-sparsity"]) - sparsity) <= 0.05  # a head is 1/12 of a tiny layer
    assert traffic.failed == []
    assert traffic.reconnects == 0
    assert traffic.generations == sorted(traffic.generations)
    assert len(set(traffic.generations)) >= 4


def test_a_level_below_the_floor_is_refused_and_traffic_is_untouched(live_service: LiveService) -> None:
    before = live_service.admin("GET", "/sparsity").json()
    operation = live_service.dial(0.97)
    assert operation["phase"] == "failed"
    assert operation["error_type"] == "accuracy_floor"
    after = live_service.admin("GET", "/sparsity").json()
    assert (after["generation"], after["variant"]) == (before["generation"], before["variant"])
    assert live_service.ask().headers["x-variant"] == before["variant"]


def test_the_same_wish_twice_is_one_change(live_service: LiveService) -> None:
    first, second = live_service.dial(0.3), live_service.dial(0.3)
    assert first["generation"] == second["generation"] == live_service.admin("GET", "/sparsity").json()["generation"]


def test_rollback_brings_the_previous_variant_back_under_a_new_generation(live_service: LiveService) -> None:
    live_service.dial(0.0)
    dense = live_service.ask().headers["x-variant"]
    changed = live_service.dial(0.5)
    operation = live_service.admin("POST", "/rollback?wait=60").json()
    assert operation["phase"] == "committed"
    answer = live_service.ask()
    assert answer.headers["x-variant"] == dense
    assert int(answer.headers["x-generation"]) == changed["generation"] + 1


def test_a_running_change_can_be_followed(live_service: LiveService) -> None:
    answer = live_service.admin("PUT", "/sparsity", json={"sparsity": 0.35})
    assert answer.status_code == 202
    location = answer.headers["location"]
    deadline = time.monotonic() + 60
    while (operation := live_service.admin("GET", location.removeprefix("/admin")).json())["phase"] != "committed":
        assert operation["phase"] in ("building", "preparing")
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert live_service.dial(0.0)["phase"] == "committed"


@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.5, "0.5", "NaN", None, True])
def test_a_sparsity_that_cannot_be_is_refused_by_name(live_service: LiveService, sparsity: object) -> None:
    answer = live_service.admin("PUT", "/sparsity", json={"sparsity": sparsity})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "sparsity" in answer.json()["detail"]


@pytest.mark.parametrize("token", [None, "wrong"])
def test_admin_asks_for_its_token(live_service: LiveService, token: str | None) -> None:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    answer = httpx.get(f"{live_service.url}/admin/sparsity", headers=headers)
    assert answer.status_code == 401
    assert live_service.admin_token not in live_service.log.read_text()


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"\xff\xfe{}", "application/json", 400),
        (b'{"inputs": "a good film"}', "text/plain", 415),
        (b'{"inputs": "' + b"a" * 10_000_000 + b'"}', "application/json", 413),
        (b'{"inputs": "' + b"good film " * 100_000 + b'"}', "application/json", 413),
        (b'{"inputs": [' + b",".join([b'"good"'] * 10_000) + b"]}", "application/json", 413),
        (b'{"inputs": []}', "application/json", 422),
    ],
)
def test_bad_bodies_are_refused_and_the_next_request_is_answered(
    live_service: LiveService, body: bytes, kind: str, status: int
) -> None:
    answer = httpx.post(live_service.url, content=body, headers={"content-type": kind}, timeout=60)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert live_service.ask().status_code == 200


def test_metrics_of_every_replica_stand_on_one_page(live_service: LiveService) -> None:
    live_service.ask()
    page = httpx.get(f"{live_service.url}/metrics").text
    families = {family.name: family.samples for family in text_string_to_metric_families(page)}
    answered = [sample for sample in families["sparsedial_requests"] if sample.labels["outcome"] == "ok"]
    assert {"replica", "route"} <= set(answered[0].labels)
    assert {sample.labels["sparsity"] for sample in families["sparsedial_level_accuracy_ratio"]} == {"0", "0.3", "0.5"}
    targets = httpx.get(f"{live_service.url}/admin/prometheus/targets").json()
    assert {target["labels"]["deployment"] for target in targets} == {"model", "control"}
    for target in targets:
        assert httpx.get(f"http://{target['targets'][0]}/metrics").status_code == 200


def test_a_second_service_on_the_same_store_is_refused(live_service: LiveService) -> None:
    command = list(live_service.command)
    command[command.index("--port") + 1] = str(free_port())
    ended = subprocess.run(command, env=live_service.environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "another service is using the store" in ended.stderr


def test_a_taken_port_is_refused_before_anything_is_scored(live_service: LiveService) -> None:
    ended = subprocess.run(
        live_service.command, env=live_service.environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2
    assert "cannot listen on" in ended.stderr


def hold_in_preparing(service: LiveService, replica: int) -> dict[str, Any]:
    """Freeze one replica and begin a swap to a level that needs no build; return the operation once it waits for it.

    The controller waits for a frozen replica until its lease of three seconds runs out. Where the machine needs longer
    than that to get here, the swap is over already, and another one is tried.
    """
    for sparsity in (0.5, 0.3, 0.5, 0.3):
        os.kill(replica, signal.SIGSTOP)
        operation: dict[str, Any] = service.admin("PUT", "/sparsity", json={"sparsity": sparsity}).json()
        while operation["phase"] == "building":
            operation = service.admin("GET", f"/operations/{operation['id']}").json()
        if operation["phase"] == "preparing":
            return operation
        os.kill(replica, signal.SIGCONT)
        service.dial(sparsity)
    pytest.fail(f"no swap was slow enough to wait for the frozen replica: {operation}")


def test_a_replica_killed_while_a_swap_waits_for_it_costs_at_most_the_requests_it_had(start_service: Start) -> None:
    service = start_service(None, "--replicas", "2")
    assert service.dial(0.3)["phase"] == service.dial(0.0)["phase"] == "committed"  # the builder is warm
    killed, survivor = service.processes("ray::ServeReplica:model:Model")
    with Traffic(service) as one, Traffic(service) as other:
        operation = hold_in_preparing(service, killed)
        os.kill(killed, signal.SIGKILL)
        committed = service.dial(operation["sparsity"])
        assert (committed["id"], committed["phase"]) == (operation["id"], "committed")
        deadline = time.monotonic() + 90
        replicas: list[dict[str, Any]] = []
        while [replica["generation"] for replica in replicas] != [committed["generation"]] * 2:
            assert time.monotonic() < deadline, replicas
            replicas = service.admin("GET", "/sparsity").json()["replicas"]
            time.sleep(0.2)
        time.sleep(1)
    for traffic in (one, other):  # each has one request in flight at a time
        assert len(traffic.failed) <= 1, traffic.failed
        assert traffic.generations == sorted(traffic.generations)
        assert set(traffic.generations) == {committed["generation"] - 1, committed["generation"]}
    assert {service.ask().headers["x-variant"] for _ in range(20)} == {committed["variant"]}
    assert survivor in service.processes("ray::ServeReplica:model:Model")
    assert service.stop() == 0


def test_a_controller_killed_in_the_middle_of_a_swap_takes_it_up_again(start_service: Start) -> None:
    service = start_service()
    with Traffic(service) as traffic:
        answer = service.admin("PUT", "/sparsity", json={"sparsity": 0.42})
        assert answer.status_code == 202, answer.text
        operation = answer.json()
        assert operation["phase"] == "building"
        os.kill(service.processes("ray::ServeReplica:control:Control")[0], signal.SIGKILL)
        deadline = time.monotonic() + 90
        phase = ""
        while phase != "committed" and time.monotonic() < deadline:
            with suppress(httpx.TransportError):  # the admin routes are away until the controller is back
                answer = service.admin("GET", f"/operations/{operation['id']}")
                phase = answer.json().get("phase", "") if answer.status_code == 200 else ""
            time.sleep(0.2)
    assert phase == "committed"
    assert traffic.failed == []
    assert float(service.ask().headers["x-sparsity"]) > 0.3

    assert service.stop() == 0
    again = start_service(service.store)
    committed = json.loads((service.store / "state.json").read_text())["state"]["committed"]["variant_id"]
    assert again.ask().headers["x-variant"] == committed
    assert again.stop() == 0


def test_a_stopping_service_answers_what_is_in_flight(start_service: Start) -> None:
    service = start_service()

    async def many() -> list[int]:
        async with httpx.AsyncClient(timeout=60) as client:
            texts = ["we hated the cold dull food and the film was bad"] * 200
            requests = [asyncio.create_task(client.post(service.url, json={"inputs": texts})) for _ in range(8)]
            await asyncio.sleep(0.05)
            service.process.send_signal(signal.SIGTERM)
            return [answer.status_code for answer in await asyncio.gather(*requests)]

    statuses = asyncio.run(many())
    assert set(statuses) <= {200, 503}  # answered, or told in words that it is stopping: never cut
    assert 200 in statuses
    assert service.process.wait(timeout=90) == 0


def test_the_default_proxy_serves_the_same_contract(start_service: Start) -> None:
    service = start_service(None, "--ingress", "proxy")
    assert service.dial(0.5)["phase"] == "committed"
    answer = service.ask("a bad film")
    assert answer.json()[0][0]["label"] == "negative"
    assert answer.headers["x-generation"] == "2"
    assert_each_answer_names_its_request_once(service)
    assert service.stop() == 0
