import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadtests.errors import LoadTestError
from loadtests.processes import Part, checked_pid, descendants, kill_one, noted_pid, parts_of

FAMILY = """
    (exec -a 'ray::ServeReplica:model:Model' sleep 60) &
    (exec -a '/somewhere/haproxy' sleep 60) &
    (exec -a 'ray::ProxyActor' sleep 60) &
    exec -a /bin/sparsedial bash -c 'sleep 60; :' bash serve
"""


def until(condition: Callable[[], bool]) -> None:
    """Return once ``condition`` holds: a process takes its title a moment after it was started."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def family() -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like a service, with children that look like its parts."""
    root = subprocess.Popen(["bash", "-c", FAMILY], start_new_session=True)
    until(
        lambda: len(descendants(root.pid)) == 4 and all("exec -a" not in one for one in descendants(root.pid).values())
    )
    yield root
    for pid in (*descendants(root.pid), root.pid):
        os.kill(pid, 9)
    root.wait()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A part of some other service."""
    process = subprocess.Popen(["ray::ServeReplica:model:Model", "60"], executable="/bin/sleep")
    yield process
    process.kill()
    process.wait()


def test_only_processes_of_the_service_are_killed(
    family: subprocess.Popen[bytes], stranger: subprocess.Popen[bytes]
) -> None:
    until(lambda: Path(f"/proc/{stranger.pid}/cmdline").read_bytes().startswith(b"ray::"))
    [replica] = parts_of(family.pid, Part.REPLICA)
    assert kill_one(family.pid, Part.REPLICA, random.Random(0)) == replica
    until(lambda: not parts_of(family.pid, Part.REPLICA))
    assert stranger.poll() is None
    assert replica != stranger.pid


def test_haproxy_is_the_ingress_where_there_is_one(family: subprocess.Popen[bytes]) -> None:
    [first] = parts_of(family.pid, Part.INGRESS)
    assert "haproxy" in descendants(family.pid)[first]
    assert kill_one(family.pid, Part.INGRESS, random.Random(0)) == first
    until(lambda: "haproxy" not in descendants(family.pid).get(first, ""))
    [second] = parts_of(family.pid, Part.INGRESS)
    assert "ray::ProxyActor" in descendants(family.pid)[second]


def test_a_part_that_is_not_there_is_refused_by_name(family: subprocess.Popen[bytes]) -> None:
    with pytest.raises(LoadTestError, match=rf"{family.pid} has no builder below it"):
        kill_one(family.pid, Part.BUILDER, random.Random(0))


def test_only_a_service_is_taken_for_one(family: subprocess.Popen[bytes]) -> None:
    assert checked_pid(family.pid) == family.pid
    with pytest.raises(LoadTestError, match="no running 'sparsedial serve'"):
        checked_pid(os.getpid())


def test_the_note_of_a_service_names_its_process(
    family: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(LoadTestError, match="give --pid"):
        noted_pid("http://127.0.0.1:8123")
    note = tmp_path / "sparsedial" / "running" / "8123.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({"pid": family.pid}), encoding="utf-8")
    assert noted_pid("http://127.0.0.1:8123") == family.pid
