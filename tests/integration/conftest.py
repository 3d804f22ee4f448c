"""A real service, started as a user starts it, on a tiny trained model."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import train_tiny_model, write_rows, write_tiny_model

START_LIMIT_S = 280.0


@dataclass
class LiveService:
    """One running ``sparsedial serve`` and how to reach it."""

    url: str
    admin_token: str
    store: Path
    command: list[str]
    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str] = field(repr=False, default_factory=dict)

    def admin(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Call an admin route with the token."""
        headers = {"authorization": f"Bearer {self.admin_token}"}
        return httpx.request(method, f"{self.url}/admin{path}", headers=headers, timeout=90, **kwargs)

    def dial(self, sparsity: float, **change: Any) -> dict[str, Any]:
        """Turn the dial, wait for the end, return the operation."""
        answer = self.admin("PUT", "/sparsity?wait=60", json={"sparsity": sparsity, **change})
        values: dict[str, Any] = answer.json()
        return values

    def ask(self, text: str = "a good film") -> httpx.Response:
        """Send one inference request."""
        return httpx.post(self.url, json={"inputs": text}, timeout=60)

    def info(self) -> dict[str, Any]:
        """Return what ``GET /info`` says of this service alone."""
        values: dict[str, Any] = httpx.get(f"{self.url}/info", timeout=60).json()["sparsedial"]
        return values

    def processes(self, title: str) -> list[int]:
        """Return the ids of this service's processes whose title starts with ``title``, once there is one.

        Ray sets a worker's title a moment after the worker has begun to serve.
        """
        deadline = time.monotonic() + 10
        while True:
            found = [pid for pid, name in descendants(self.process.pid) if name.startswith(title)]
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.1)

    def listening(self) -> list["Listening"]:
        """Return the TCP sockets that this service's processes listen on."""
        sockets = _listening_sockets()
        found = []
        for pid, title in [(self.process.pid, "sparsedial"), *descendants(self.process.pid)]:
            with suppress(FileNotFoundError):
                for descriptor in os.scandir(f"/proc/{pid}/fd"):
                    with suppress(FileNotFoundError):
                        if (held := sockets.get(os.readlink(descriptor))) is not None:
                            found.append(Listening(title, *held))
        return found

    def stop(self) -> int:
        """Ask the service to stop and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=90)


@dataclass(frozen=True)
class Listening:
    """A TCP socket that somebody listens on."""

    title: str
    loopback: bool
    port: int


def _listening_sockets() -> dict[str, tuple[bool, int]]:
    """Return (on loopback, port) of every listening TCP socket, by the name that a descriptor's link shows."""
    sockets = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            address, _, port = local.rpartition(":")
            if state == "0A":
                loopback = address in ("0100007F", "00000000000000000000000001000000")
                sockets[f"socket:[{inode}]"] = (loopback, int(port, 16))
    return sockets


def descendants(root: int) -> list[tuple[int, str]]:
    """Return (pid, title) of every process below ``root``."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        for pid in parents.get(waiting.pop(), []):
            try:
                title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except (FileNotFoundError, ProcessLookupError):
                continue
            found.append((pid, title))
            waiting.append(pid)
    return found


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def trained_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A tiny model that knows good from bad, its calibration rows and its evaluation rows."""
    folder = tmp_path_factory.mktemp("trained")
    train = write_rows(folder / "train.jsonl", 200, seed=3)
    model = write_tiny_model(folder / "model", layers=3, positions=64)
    return train_tiny_model(model, train), train, write_rows(folder / "eval.jsonl", 100, seed=4)


Start = Callable[..., LiveService]


@pytest.fixture(scope="session")
def start_service(trained_model: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Give a function that starts services; all of them are stopped at the end."""
    model, train, evaluation = trained_model
    started: list[LiveService] = []

    def start(store: Path | None = None, *arguments: str, **variables: str) -> LiveService:
        store = store or tmp_path_factory.mktemp("store")
        url = f"http://127.0.0.1:{(port := free_port())}"
        command = [
            *(str(Path(sys.executable).parent / "sparsedial"), "serve", str(model), "--port", str(port)),
            *("--train", str(train), "--eval", str(evaluation), "--store", str(store)),
            *("--levels", "0,0.3,0.5", *arguments),
        ]
        environment = {**os.environ, "XDG_CACHE_HOME": str(store / "cache"), **variables}
        log = store / "serve.log"
        store.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, start_new_session=True)
        service = LiveService(url, "", store, command, process, log, environment)
        started.append(service)
        _wait_until_ready(service)
        service.admin_token = (store / "admin.token").read_text().strip()
        return service

    yield start
    for service in started:
        if service.process.poll() is None:
            service.stop()


def _wait_until_ready(service: LiveService) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if service.process.poll() is not None:
            pytest.fail(f"the service ended with {service.process.returncode}:\n{service.log.read_text()[-3000:]}")
        try:
            # The two applications come up side by side; either may be first.
            if all(
                httpx.get(service.url + path, timeout=5).status_code == 200 for path in ("/health", "/admin/health")
            ):
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    service.process.kill()
    pytest.fail(f"the service did not come up:\n{service.log.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def live_service(start_service: Start) -> LiveService:
    """One service shared by all tests that leave it as they found it."""
    return start_service()
