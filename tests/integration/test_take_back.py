"""A builder that hangs, and one that dies."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.integration.conftest import LiveService

pytestmark = pytest.mark.ray


def test_a_build_that_hangs_is_taken_back_and_the_next_one_does_not_wait_for_it(live_service: LiveService) -> None:
    [hung] = live_service.processes("ray::VariantBuilder")
    before = live_service.admin("GET", "/sparsity").json()
    os.kill(hung, signal.SIGSTOP)
    try:
        running = live_service.admin("PUT", "/sparsity", json={"sparsity": 0.43}).json()
        assert running["phase"] == "building"
        answer = live_service.admin("POST", "/rollback")
        assert answer.status_code == 200, answer.text
        assert (answer.json()["id"], answer.json()["error_type"]) == (running["id"], "cancelled")
        after = live_service.admin("GET", "/sparsity").json()
        assert (after["generation"], after["variant"]) == (before["generation"], before["variant"])
        assert live_service.dial(0.43)["phase"] == "committed"
        assert "raylet" not in live_service.log.read_text()
        deadline = time.monotonic() + 60
        while Path(f"/proc/{hung}").exists():
            assert time.monotonic() < deadline, "the hung builder is still there"
            time.sleep(0.2)
    finally:
        if Path(f"/proc/{hung}").exists():
            os.kill(hung, signal.SIGCONT)


def test_a_build_whose_process_dies_is_begun_again(live_service: LiveService) -> None:
    builders = live_service.processes("ray::VariantBuilder")
    for builder in builders:
        os.kill(builder, signal.SIGSTOP)
    running = live_service.admin("PUT", "/sparsity", json={"sparsity": 0.37}).json()
    assert running["phase"] == "building"
    for builder in builders:
        os.kill(builder, signal.SIGKILL)
    committed = live_service.dial(0.37)
    assert (committed["id"], committed["phase"]) == (running["id"], "committed")
