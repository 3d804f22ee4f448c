import os
import subprocess
import sys
import time

import pytest

from service.pace import LONGEST_S, TASKS, Pace, seconds_waited


class Machine:
    """Clocks that a test turns by hand."""

    def __init__(self) -> None:
        self.now = self.waited = 0.0
        self.slept: list[float] = []
        self.threads: list[int] = []

    def pace(self, threads: int) -> Pace:
        return Pace(
            threads,
            wall=lambda: self.now,
            waited=lambda: self.waited,
            sleep=self._sleep,
            compute_with=self.threads.append,
        )

    def batch(self, took_s: float, waited_s: float) -> None:
        self.now += took_s
        self.waited += waited_s

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.mark.parametrize(("threads", "waited_s"), [(1, 0.0), (1, 0.015), (2, 0.03)])
def test_on_an_idle_machine_nothing_waits(threads: int, waited_s: float) -> None:
    machine = Machine()
    pace = machine.pace(threads)
    for _ in range(5):
        machine.batch(0.1, waited_s)
        pace()
    assert machine.slept == []


@pytest.mark.parametrize(("threads", "waited_s"), [(1, 0.03), (2, 0.1), (2, 0.2)])
def test_on_a_busy_machine_it_stays_away_as_long_as_the_batch_took(threads: int, waited_s: float) -> None:
    machine = Machine()
    pace = machine.pace(threads)
    for _ in range(3):  # its own sleep does not count as waiting
        machine.batch(0.1, waited_s)
        pace()
    assert machine.slept == pytest.approx([0.1, 0.1, 0.1])


def test_while_it_is_kept_waiting_it_computes_with_one_thread() -> None:
    machine = Machine()
    with machine.pace(2) as pace:
        for waited_s in (0.0, 0.1, 0.1, 0.0, 0.0):
            machine.batch(0.1, waited_s)
            pace()
        assert machine.threads == [1, 2]
        machine.batch(0.1, 0.1)
        pace()
        assert machine.threads == [1, 2, 1]
    assert machine.threads == [1, 2, 1, 2]


def test_once_kept_waiting_it_stays_away_until_it_hardly_waits() -> None:
    machine = Machine()
    pace = machine.pace(1)
    for waited_s in (0.015, 0.03, 0.003, 0.001, 0.015):
        machine.batch(0.1, waited_s)
        pace()
    assert machine.slept == pytest.approx([0.1, 0.1])


def test_it_goes_on_at_once_when_the_machine_is_idle_again() -> None:
    machine = Machine()
    pace = machine.pace(2)
    machine.batch(0.1, 0.1)
    pace()
    machine.batch(0.1, 0.0)
    pace()
    assert machine.slept == pytest.approx([0.1])


def test_a_single_wait_is_bounded() -> None:
    machine = Machine()
    pace = machine.pace(2)
    machine.batch(60.0, 60.0)
    pace()
    assert machine.slept == [LONGEST_S]


@pytest.mark.skipif(not (TASKS / str(os.getpid()) / "schedstat").exists(), reason="this system has no schedstat")
def test_time_spent_ready_but_not_running_is_seen() -> None:
    """Two busy processes on one processor: each waits while the other runs."""
    allowed = os.sched_getaffinity(0)
    code = "import os, time\nos.sched_setaffinity(0, {%d})\nprint(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code % min(allowed)], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            os.sched_setaffinity(0, {min(allowed)})
            before, until = seconds_waited(), time.perf_counter() + 0.5
            while time.perf_counter() < until:
                pass
            assert seconds_waited() - before > 0.1
        finally:
            os.sched_setaffinity(0, allowed)
            other.kill()
