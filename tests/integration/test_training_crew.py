"""``sparsedial recover --workers 2``: real processes of Ray Train, one of which dies."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.conftest import descendants

pytest.importorskip("pandas", reason="the extra train is not installed")
pytestmark = pytest.mark.ray

STEPS = 400
LIMIT_S = 240.0


@contextmanager
def recover(model: tuple[Path, Path, Path], store: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the command for the block, on the store beside which its stdout and stderr lie."""
    where, train, evaluation = model
    command = [
        *(str(Path(sys.executable).parent / "sparsedial"), "recover", str(where), "--json"),
        *("--train", str(train), "--eval", str(evaluation), "--store", str(store)),
        *("--sparsity", "0.5", "--steps", str(STEPS), "--batch-rows", "8", "--workers", "2", *arguments),
    ]
    with store.with_suffix(".out").open("wb") as out, store.with_suffix(".err").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=60)


def test_a_worker_that_is_killed_ends_the_command_in_words_and_resume_goes_on(
    trained_model: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    store, out, err = (tmp_path / name for name in ("store", "store.out", "store.err"))
    with recover(trained_model, store) as process:
        deadline = time.monotonic() + LIMIT_S
        while not list(store.glob("recovering/*/00000100/record.json")):
            assert process.poll() is None and time.monotonic() < deadline, err.read_text()
            time.sleep(0.02)
        begun = descendants(process.pid)
        one, _ = [pid for pid, title in begun if title.startswith("ray::RayTrainWorker")]
        os.kill(one, signal.SIGKILL)
        assert (process.wait(LIMIT_S), out.read_text()) == (2, ""), err.read_text()
    said = err.read_text()
    assert "the same command with --resume goes on" in said and "Traceback" not in said

    with recover(trained_model, store, "--resume") as process:
        assert process.wait(LIMIT_S) == 0, err.read_text()
    training = json.loads(out.read_text())["training"]
    assert (training["step"], training["workers"], training["device"]) == (STEPS, 2, "cpu")
    lines = [line for line in err.read_text().splitlines() if line.startswith("training at 0.5: ")]
    steps = [int(line.split("step ")[1].split(",")[0]) for line in lines]
    assert steps[0] > 100 and steps[-1] == STEPS

    assert not [pid for pid, _ in begun if Path(f"/proc/{pid}").exists()]
    assert not list(store.glob(".*")) and not list(store.glob("recovering/*"))
