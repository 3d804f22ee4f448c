"""Starts that must end in words."""

import re
import subprocess

import pytest
import torch

from tests.integration.conftest import LiveService, free_port

pytestmark = pytest.mark.ray


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused_and_nothing_stays_behind(live_service: LiveService) -> None:
    command = list(live_service.command)
    command[command.index("--port") + 1] = str(free_port())
    command[command.index("--store") + 1] = str(live_service.store.parent / "without-gpu")
    ended = subprocess.run(
        [*command, "--device", "cuda"], env=live_service.environment, capture_output=True, text=True, timeout=180
    )
    assert ended.returncode == 2, ended.stderr
    words = "needs 1 GPUs for 1 replicas, 1 on each, and of the 0 that Ray sees 0 are free"
    assert "--device cuda" in ended.stderr and words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_first_level_below_the_floor_is_refused_with_both_numbers(live_service: LiveService) -> None:
    command = list(live_service.command)
    command[command.index("--port") + 1] = str(free_port())
    command[command.index("--store") + 1] = str(live_service.store.parent / "below-floor")
    ended = subprocess.run(
        [*command, "--sparsity", "0.97"], env=live_service.environment, capture_output=True, text=True, timeout=180
    )
    assert ended.returncode == 2, ended.stderr
    assert re.search(r"sparsity 0\.97 cannot be served: its accuracy 0\.\d{4} is below the floor 0\.95", ended.stderr)
    assert "Traceback" not in ended.stderr
