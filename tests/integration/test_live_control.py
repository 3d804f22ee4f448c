"""Canary, guard, policy and events, on a real service with real traffic."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning.files import digest_of, sha256_of, write_json
from tests.integration.conftest import LiveService
from tests.integration.test_service import Traffic

pytestmark = pytest.mark.ray


@pytest.fixture
def service(live_service: LiveService) -> Iterator[LiveService]:
    """The shared service on its dense level; its policy is put back afterwards."""
    live_service.dial(0.0)
    before = live_service.admin("GET", "/policy").json()
    yield live_service
    live_service.admin("PUT", "/policy", json=before)
    live_service.dial(0.0, canary=False)


class Listener:
    """Reads the service's events from now on, until told to stop."""

    def __init__(self, service: LiveService) -> None:
        self._service = service
        self.heard: list[dict[str, object]] = []
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> "Listener":
        self._thread.start()
        assert self._connected.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(30)

    def _listen(self) -> None:
        headers = {"authorization": f"Bearer {self._service.admin_token}"}
        with httpx.stream("GET", f"{self._service.url}/admin/events", headers=headers, timeout=60) as stream:
            for line in stream.iter_lines():
                self._connected.set()
                if line.startswith("data: "):
                    self.heard.append(json.loads(line.removeprefix("data: ")))
                    if self.heard[-1].get("phase") in ("committed", "failed", "rolled_back"):
                        return


def test_a_canary_answers_its_share_before_it_is_committed_and_every_step_is_told(service: LiveService) -> None:
    service.admin("PUT", "/policy", json={"shadow_fraction": 1.0, "canary_texts": 5, "canary_s": 20})
    with Traffic(service) as traffic, Listener(service) as listener:
        operation = service.dial(0.3, canary=0.5)
    assert operation["phase"] == "committed" and "try" in operation["durations_s"]
    assert [one["phase"] for one in listener.heard] == ["building", "preparing", "trying", "committed"]
    assert traffic.failed == []
    assert traffic.generations == sorted(traffic.generations)


def test_a_variant_whose_weights_were_spoilt_after_it_was_judged_is_turned_back_by_itself(service: LiveService) -> None:
    variant = service.dial(0.2)["variant"]
    for sparsity in (0.3, 0.0):  # it is no longer the previous one, and so no longer loaded
        service.dial(sparsity)
    spoil(service.store / "variants" / variant)
    service.admin("PUT", "/policy", json={"shadow_fraction": 1.0})
    assert service.dial(0.2)["phase"] == "committed"
    texts = [f"{one} {other}" for one in ("good", "bad", "warm", "cold") for other in ("film", "food", "day", "soup")]
    asked, deadline = 0, time.monotonic() + 60
    while service.info()["requested_sparsity"] == 0.2 and time.monotonic() < deadline:
        service.ask(texts[asked % len(texts)])
        asked += 1
        time.sleep(0.02)  # the dense model answers too, when nobody else asks
    status = service.admin("GET", "/sparsity").json()
    assert status["sparsity"] == 0.0
    assert asked < 500
    refused = service.admin("POST", "/rollback")
    assert refused.status_code == 409 and "turned back" in refused.json()["detail"]
    shutil.rmtree(service.store / "variants" / variant)


def spoil(folder: Path) -> None:
    """Replace a stored variant's weights by noise, with checksums that fit."""
    generator = torch.Generator().manual_seed(1)
    weights = load_file(folder / "weights.safetensors")
    save_file(
        {name: torch.randn(tensor.shape, generator=generator) for name, tensor in weights.items()},
        folder / "weights.safetensors",
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["manifest_sha256"]
    manifest["probe_logits"] = []  # a variant that says how it answers would not even be loaded
    manifest["weights_sha256"] = sha256_of(folder / "weights.safetensors")
    write_json(folder / "manifest.json", manifest | {"manifest_sha256": digest_of(manifest)})


def test_a_request_may_name_its_level_while_another_one_is_live(service: LiveService) -> None:
    for quality, live in (("low", False), ("high", True)):
        answer = httpx.post(service.url, json={"inputs": "good", "parameters": {"quality": quality}}, timeout=60)
        assert answer.status_code == 200
        assert (float(answer.headers["x-sparsity"]) == 0.0) is live
    refused = httpx.post(service.url, json={"inputs": "good"}, headers={"x-sparsity": "0.9"}, timeout=60)
    assert refused.status_code == 422 and "ask for one of" in refused.json()["detail"]


def test_a_cascade_answers_by_request_and_by_policy_and_plans_rest_on_what_is_there(service: LiveService) -> None:
    frontier = service.admin("GET", "/frontier").json()
    (level,) = [row for row in frontier["levels"] if row["requested_sparsity"] == 0.5]
    cascades = [row for row in frontier["cascades"] if row["level"] == level["variant"]]
    assert [row["agreement_target"] for row in cascades] == [0.98, 0.99, 0.995]
    texts = ["good film", "bad food", "it was not very warm"]
    body = {"inputs": texts, "parameters": {"sparsity": 0.5, "cascade": True}}
    deadline = time.monotonic() + 60
    while (asked := httpx.post(service.url, json=body, timeout=60)).status_code == 422 and time.monotonic() < deadline:
        time.sleep(0.2)  # levels are loaded in the background
    assert asked.status_code == 200, asked.text
    assert (asked.headers["x-variant"], asked.headers["x-escalated"][1:]) == (level["variant"], " of 3")

    usual = {"cascade": {"sparsity": 0.5, "agreement": 0.98}}
    assert service.admin("PUT", "/policy", json=usual).json()["cascade"] == usual["cascade"]
    deadline = time.monotonic() + 30
    while "x-escalated" not in (answer := service.ask()).headers and time.monotonic() < deadline:
        time.sleep(0.1)  # a replica hears of it within a poll
    assert answer.headers["x-variant"] == level["variant"]
    refused = service.admin("PUT", "/policy", json={"cascade": {"sparsity": 0.4, "agreement": 0.98}})
    assert refused.status_code == 422 and "have one: 0.3, 0.5" in refused.json()["detail"]
    service.admin("PUT", "/policy", json={"cascade": None})

    plan = service.admin("POST", "/plan", json={"sparsity": 0.4}).json()
    below, above = plan["neighbours"]  # of the ladder, or of what tests before this one had built in between
    assert (plan["exact"], plan["resident"]) == (False, False) and 0.3 <= below < 0.4 < above <= 0.5
    best = service.admin("POST", "/plan", json={"p99_ms": 60_000}).json()
    assert (best["sparsity"], best["resident"]) == (0.0, True)
