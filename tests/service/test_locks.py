import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pruning.errors import StoreError
from service.locks import sole_service

HOLDER = """
import sys, time
from pathlib import Path
from service.locks import sole_service
with sole_service(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""


def test_a_store_has_one_service_at_a_time(tmp_path: Path) -> None:
    with sole_service(tmp_path):
        with pytest.raises(StoreError, match=f"another service is using the store {tmp_path}"), sole_service(tmp_path):
            pass
        with sole_service(tmp_path / "other"):
            pass
    with sole_service(tmp_path):
        pass


def test_the_lock_is_let_go_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), sole_service(tmp_path):
        raise RuntimeError
    with sole_service(tmp_path):
        pass


def test_the_lock_is_free_after_its_holder_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match="another service"), sole_service(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait(timeout=30)
    with sole_service(tmp_path):
        pass


def test_the_lock_is_not_kept_by_a_child_that_outlives_its_holder(tmp_path: Path) -> None:
    with sole_service(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    try:
        with sole_service(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_store_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="choose a writable --store"), sole_service(tmp_path / "file" / "store"):
        pass


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreError, match="local disk"), sole_service(tmp_path):
        pass
