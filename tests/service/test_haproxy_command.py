import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from pruning.errors import PruningError
from service.fast_path import free_ports
from service.haproxy_command import NO_ROUTES, haproxy_command
from service.problems import PROBLEM_JSON

ROUTES = "    use_backend http-model if is_http-model\n"
NOTHING = "    default_backend default_backend\n"

Run = Callable[..., str]
"""A configuration as Ray wrote it, and further arguments -> what HAProxy reads."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    real = tmp_path / "real"
    real.write_text('#!/bin/sh\necho "$@"\n')
    real.chmod(0o700)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(real))
    command, config = haproxy_command(tmp_path), tmp_path / "any.cfg"

    def run(written: str, *arguments: str) -> str:
        config.write_text(written)
        said = subprocess.run([command, "-db", "-f", config, *arguments], capture_output=True, text=True, check=True)
        assert said.stdout == " ".join(["-db", "-f", str(config), *arguments]) + "\n"
        return config.read_text()

    return run


def test_haproxy_shows_its_statistics_on_loopback_only(run: Run) -> None:
    read = run("  bind *:8404\n    bind :9101\n    bind 0.0.0.0:8000\n    bind 127.0.0.1:80 proto h2\n", "-x", "a b")
    assert read.split("\n") == [
        "  bind 127.0.0.1:8404",
        "    bind 127.0.0.1:9101",
        "    bind 0.0.0.0:8000",
        "    bind 127.0.0.1:80 proto h2",
        "",
    ]


def test_a_haproxy_that_took_nobody_s_place_begins_with_the_routes_of_the_one_before_it(run: Run) -> None:
    assert run(NOTHING) == NOTHING
    assert run(ROUTES, "-sf", "7") == ROUTES
    assert run(NOTHING) == ROUTES
    assert run(NOTHING, "-sf", "7") == NOTHING, "a living one was told that there are none"


def test_a_front_door_without_routes_says_when_to_come_back(tmp_path: Path) -> None:
    from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

    (refusal,) = [line for line in HAPROXY_CONFIG_TEMPLATE.split("\n") if "return status 404" in line]
    (port,) = free_ports(1)
    config = tmp_path / "any.cfg"
    config.write_text(
        "defaults\n    mode http\n    timeout client 5s\n    timeout connect 5s\n    timeout server 5s\n"
        f"frontend door\n    bind 127.0.0.1:{port}\n    default_backend default_backend\n"
        f"backend default_backend\n{refusal}\n"
    )
    with subprocess.Popen([haproxy_command(tmp_path), "-db", "-f", config]) as haproxy:
        try:
            answer = _answer(f"http://127.0.0.1:{port}/predict")
        finally:
            haproxy.terminate()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (answer.headers["content-type"], answer.json()) == (PROBLEM_JSON, NO_ROUTES.problem())


def test_without_haproxy_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(tmp_path / "nothing here"))
    with pytest.raises(PruningError, match=r"nothing here.*--ingress proxy"):
        haproxy_command(tmp_path)


def _answer(url: str) -> httpx.Response:
    for _ in range(200):
        try:
            return httpx.post(url, json={"inputs": "good"}, trust_env=False)
        except httpx.ConnectError:
            time.sleep(0.05)
    raise AssertionError("HAProxy did not listen")
