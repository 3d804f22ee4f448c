import asyncio
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtests.peers.proc import Member, Tree, lives, machine_cpu_s
from loadtests.peers.process import PeerError, Process, run_to_end

BUSY = "import time\nwhile time.process_time() < 0.5: pass\ntime.sleep(300)"
SLEEP = (sys.executable, "-c", "import time; time.sleep(300)")
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session={apart})
print("child", child.pid, flush=True)
{then}
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Process]:
    def started(*command: str, grace_s: float = 5.0) -> Process:
        return Process(command, folder=tmp_path, environment=dict(os.environ), log=tmp_path / "log", grace_s=grace_s)

    return started


def child_of(process: Process, log: Path) -> Member:
    """The process whose number the parent has printed."""
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s:
        if found := re.search(r"child (\d+)\n", log.read_text(encoding="utf-8")):
            return next(member for member in process.tree.members() if member.pid == int(found[1]))
        time.sleep(0.02)
    raise AssertionError("no child")


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("then", ["time.sleep(300)", "import signal; signal.signal(15, 1); time.sleep(300)"])
def test_nothing_outlives_the_block(start: Callable[..., Process], tmp_path: Path, apart: bool, then: str) -> None:
    code = PARENT.format(apart=apart, then=then)
    with start(sys.executable, "-c", code, grace_s=0.3) as process:
        members = [child_of(process, tmp_path / "log"), *process.tree.members()]
        assert all(map(lives, members)) and len(set(members)) == 2
    assert process.ended
    assert not any(map(lives, members))


def test_a_child_outlives_neither_a_parent_that_ended_by_itself(start: Callable[..., Process], tmp_path: Path) -> None:
    with start(sys.executable, "-c", PARENT.format(apart=True, then="time.sleep(1)")) as process:
        child = child_of(process, tmp_path / "log")
        while not process.ended:
            time.sleep(0.02)
        assert lives(child)
    assert not lives(child)


def test_a_process_ends_when_the_block_is_left_by_an_error(start: Callable[..., Process]) -> None:
    with pytest.raises(KeyboardInterrupt), start(*SLEEP) as process:
        members = process.tree.members()
        raise KeyboardInterrupt
    assert members and not any(map(lives, members))


def test_stopping_twice_is_once(start: Callable[..., Process]) -> None:
    process = start(*SLEEP)
    assert process.stop() == process.stop() == -15


def test_the_last_words_are_the_last_error_without_folders_and_addresses(start: Callable[..., Process]) -> None:
    lines = "\\n".join(["one", "ERROR: no /opt/a/b/wheel at https://host/simple", "[notice] bye"])
    with start(sys.executable, "-c", f'print("{lines}")') as process:
        while not process.ended:
            time.sleep(0.02)
        assert process.last_words() == "ERROR: no wheel at (address)"


async def test_a_step_that_fails_or_takes_too_long_says_so(tmp_path: Path) -> None:
    common = {"folder": tmp_path, "environment": dict(os.environ), "log": tmp_path / "log"}
    await run_to_end([sys.executable, "-c", "pass"], limit_s=20, **common)  # type: ignore[arg-type]
    with pytest.raises(PeerError, match="exit status 3: it printed nothing"):
        await run_to_end([sys.executable, "-c", "raise SystemExit(3)"], limit_s=20, **common)  # type: ignore[arg-type]
    with pytest.raises(PeerError, match=r"not done within 0\.2 s"):
        await run_to_end(SLEEP, limit_s=0.2, **common)  # type: ignore[arg-type]
    with pytest.raises(PeerError, match="cannot start absent"):
        await run_to_end(["/nowhere/absent"], limit_s=1, **common)  # type: ignore[arg-type]


async def test_a_cancelled_step_leaves_nothing(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    code = f"open({mark!r}, 'w').write(str(__import__('os').getpid())); import time; time.sleep(300)"
    step = asyncio.create_task(
        run_to_end(
            [sys.executable, "-c", code],
            folder=tmp_path,
            environment=dict(os.environ),
            log=tmp_path / "log",
            limit_s=60,
        )
    )
    while not (Path(mark).exists() and Path(mark).read_text()):
        await asyncio.sleep(0.02)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path(mark).read_text()), 0)


def test_a_tree_counts_memory_and_processor_time_of_what_has_ended_too(start: Callable[..., Process]) -> None:
    before_s = machine_cpu_s()
    with start(sys.executable, "-c", BUSY) as process:
        while process.tree.cpu_s() < 0.3:
            time.sleep(0.02)
        assert process.tree.resident_bytes() > 1_000_000
    assert process.tree.cpu_s() >= 0.3
    assert machine_cpu_s() - before_s >= 0.2
    assert Tree(process.tree._root).members() == []
