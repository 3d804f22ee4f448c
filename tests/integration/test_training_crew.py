"""``sparsedial recover --workers 2``: real processes of Ray Train, one of which dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.conftest import descendants

pytest.importorskip("pandas", reason="the extra train is not installed")
pytestmark = pytest.mark.ray

STEPS = 400


def recover(model: tuple[Path, Path, Path], folder: Path, *arguments: str) -> subprocess.Popen[str]:
    where, train, evaluation = model
    command = [
        *(str(Path(sys.executable).parent / "sparsedial"), "recover", str(where), "--json"),
        *("--train", str(train), "--eval", str(evaluation), "--store", str(folder / "store")),
        *("--sparsity", "0.5", "--steps", str(STEPS), "--batch-rows", "8", "--workers", "2", *arguments),
    ]
    environment = {**os.environ, "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    return [pid for pid, title in descendants(process.pid) if title.startswith("ray::RayTrainWorker")]


def test_a_worker_that_is_killed_ends_the_command_in_words_and_resume_goes_on(
    trained_model: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    killed = recover(trained_model, tmp_path)
    while not list(tmp_path.glob("store/recovering/*/00000100/record.json")):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    begun = [pid for pid, _ in descendants(killed.pid)]
    one, _ = workers_of(killed)
    os.kill(one, signal.SIGKILL)
    stdout, stderr = killed.communicate(timeout=120)
    assert (killed.returncode, stdout) == (2, ""), stderr
    assert "the same command with --resume goes on" in stderr and "Traceback" not in stderr

    resumed = recover(trained_model, tmp_path, "--resume")
    stdout, stderr = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, stderr
    training = json.loads(stdout)["training"]
    assert (training["step"], training["workers"], training["device"]) == (STEPS, 2, "cpu")
    shown = [int(line.split("step ")[1].split(",")[0]) for line in stderr.splitlines() if "training at 0.5: " in line]
    assert shown[0] > 100 and shown[-1] == STEPS

    # Nothing is left of either: no process, no file but the store's.
    assert not [pid for pid in begun if Path(f"/proc/{pid}").exists()]
    assert not list(tmp_path.glob("store/.*")) and not list(tmp_path.glob("store/recovering/*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]
