import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.peers.catalog import Contestant
from loadtests.peers.cells import Shape
from loadtests.peers.process import GRACE_S
from loadtests.peers.rows import Row
from loadtests.peers.run import Plan, measure
from tests.loadtests.peers.contestants import contestant

ROOT = Path(__file__).parents[3]
TEXTS = ["fine", "sad", "a longer one"]


def plan(folder: Path, *contestants: Contestant, rounds: int = 1) -> Plan:
    return Plan(
        contestants=contestants,
        texts=TEXTS,
        envs=folder,
        shapes=(Shape(clients=1), Shape(clients=2, texts=2)),
        seconds=0.2,
        warm_up_s=0.05,
        rounds=rounds,
        start_limit_s=20.0,
        timeout_s=5.0,
    )


def children_in(folder: Path) -> list[int]:
    """The numbers of the processes that servers say in their logs to have left."""
    logs = "".join(log.read_text(encoding="utf-8") for log in (folder / "logs").iterdir())
    return [int(number) for number in re.findall(r"child (\d+)", logs)]


def gone(pid: int) -> bool:
    """True when there is no such process, or it only waits to be reaped by whoever adopted it."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


async def test_each_start_gives_one_reading_of_every_load(tmp_path: Path) -> None:
    rows = await measure(plan(tmp_path, contestant("one"), contestant("two", "contrary"), rounds=2))
    assert [row.name for row in rows] == ["one", "two"]
    for row in rows:
        assert {shape: len(readings) for shape, readings in row.readings.items()} == {"c1": 2, "b2x2": 2}
        assert all(reading.items_per_s > 0 for readings in row.readings.values() for reading in readings)
        assert len(row.starts_s) == len(row.resident_bytes) == 2
        assert row.failed == 0 and row.faults == []
    assert rows[0].labels == [["good"] * 3] * 2
    assert rows[1].labels == [["bad"] * 3] * 2


async def test_who_does_not_start_is_a_row_that_says_why_and_the_run_goes_on(tmp_path: Path) -> None:
    absent, present = await measure(plan(tmp_path, contestant("absent", "break"), contestant("present"), rounds=2))
    assert absent.readings == {}
    assert absent.faults == ["does not start: ImportError: no engine in engine.so"]
    assert present.faults == [] and len(present.readings["c1"]) == 2


async def test_who_answers_badly_is_a_row_that_says_so(tmp_path: Path) -> None:
    (row,) = await measure(replace(plan(tmp_path, contestant("refuses", "refuse")), start_limit_s=1.0))
    assert "status 503 for 1 texts" in row.faults[0]


async def test_who_cannot_be_installed_is_a_row_that_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "peer"
    folder.mkdir()
    (folder / "requirements.txt").write_text("--no-index\n--no-such-option\n", encoding="utf-8")
    missing = Contestant(name="missing", about="", start=lambda place: ("x",), folder=folder)
    row, present = await measure(plan(tmp_path / "envs", missing, contestant("present")))
    assert row.faults[0].startswith("does not install: exit status")
    assert present.faults == []


async def test_nothing_outlives_the_run(tmp_path: Path) -> None:
    await measure(plan(tmp_path, contestant("one", "parent")))
    (child,) = children_in(tmp_path)
    assert gone(child)


PROGRAM = """
import signal
import sys
from dataclasses import replace
from pathlib import Path
from loadtests.peers.run import measure
from loadtests.peers.outcome import result_of
from loadtests.running import exit_code_of
from tests.loadtests.peers.contestants import contestant
from tests.loadtests.peers.test_run import plan

async def run():
    options = replace(plan(Path(sys.argv[1]), contestant("one", "parent")), seconds=60.0)
    return result_of(await measure(options), ["c1"], {}, None)

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts the tests may ignore it
sys.exit(exit_code_of(run(), out=None, as_json=False))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_outlives_a_run_that_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        assert program.stderr is not None
        while "answers after" not in (line := program.stderr.readline()):
            assert line, "it ended too soon"
        (child,) = children_in(tmp_path)
        program.send_signal(number)
        told = program.communicate(timeout=GRACE_S)[1]
    finally:
        program.kill()
        program.wait()
    assert program.returncode == 2
    assert "interrupted" in told
    assert gone(child)


def test_rows_of_a_dialled_contestant_are_one_for_each_level(tmp_path: Path) -> None:
    dialled = Contestant(name="sparsedial", about="", start=lambda place: (), dialled=True)
    rows: list[Row] = plan(tmp_path, dialled).rows_of(dialled)
    assert [row.name for row in rows] == ["sparsedial 0", "sparsedial 0.5", "sparsedial 0.7"]
    assert [row.is_reference for row in rows] == [True, False, False]
