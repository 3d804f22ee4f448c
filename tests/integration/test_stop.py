"""What a service leaves behind."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.conftest import LiveService, Start, descendants, free_port

pytestmark = pytest.mark.ray


def test_a_clean_stop_says_that_it_stops_and_no_more(start_service: Start) -> None:
    service = start_service()
    assert service.ask().status_code == 200
    assert service.stop() == 0
    said = service.log.read_text().splitlines()
    assert said[-1] == "stopping: requests in flight are finished first"
    assert not [line for line in said if "raylet" in line]


def test_a_start_that_is_stopped_says_so_and_leaves_no_process(live_service: LiveService, tmp_path: Path) -> None:
    command = list(live_service.command)
    command[command.index("--port") + 1] = str(free_port())
    command[command.index("--store") + 1] = str(tmp_path / "store")
    log = tmp_path / "serve.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=live_service.environment, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while not any(title.startswith("ray::ServeController") for _, title in descendants(process.pid)):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        begun = [pid for pid, _ in descendants(process.pid)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=90) == 1, log.read_text()
    finally:
        process.kill()
    assert "stopped before it served" in log.read_text()
    assert "Traceback" not in log.read_text()
    deadline = time.monotonic() + 10
    while left := [pid for pid in begun if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
