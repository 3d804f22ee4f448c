"""What the system tells of processes: who belongs to a server, its memory, its processor time and everybody's."""

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Member:
    """One process; its start time tells it from a later one with the same number."""

    pid: int
    started: int
    """Clock ticks after the machine's start."""


@dataclass(frozen=True, slots=True)
class _Status:
    member: Member
    parent: int
    session: int
    cpu_s: float


class Tree:
    """A process with all that descends from it or shares its session, those too that have left it since."""

    def __init__(self, root: int) -> None:
        """Begin with the process ``root``, the leader of a session."""
        self._root = root
        self._cpu_s: dict[Member, float] = {}

    def members(self) -> list[Member]:
        """Return the members that live now."""
        known = {member.pid: member for member in self._cpu_s}
        statuses = [status for status in map(_status, _pids()) if status is not None]
        inside = {status.member.pid for status in statuses if status.session == self._root}
        inside |= {status.member.pid for status in statuses if known.get(status.member.pid) == status.member}
        grown = True
        while grown:
            children = {status.member.pid for status in statuses if status.parent in inside}
            grown = not children <= inside
            inside |= children
        living = [status for status in statuses if status.member.pid in inside]
        self._cpu_s |= {status.member: status.cpu_s for status in living}
        return [status.member for status in living]

    def cpu_s(self) -> float:
        """Return the seconds of processor time so far, of ended members as far as they were seen."""
        self.members()
        return sum(self._cpu_s.values())

    def resident_bytes(self) -> int:
        """Return the proportional resident memory: a page that several processes share counts once."""
        return sum(_pss_bytes(member.pid) for member in self.members())


def lives(member: Member) -> bool:
    """True while that very process is there and no zombie."""
    status = _status(member.pid)
    return status is not None and status.member == member


def machine_cpu_s() -> float:
    """Return the seconds of processor time that all processes took since the start, and the hypervisor kept away.

    Time in interrupts is left out: no process is charged for it.
    """
    user, nice, system, _idle, _wait, _irq, _softirq, steal = map(
        int, (PROC / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + steal) / TICKS_PER_S


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal()]


def _status(pid: int) -> _Status | None:
    """Return what is told of a process; None when it has ended."""
    try:
        line = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name before them stands in parentheses and may hold anything.
    fields = line.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return _Status(
        member=Member(pid, int(fields[19])),
        parent=int(fields[1]),
        session=int(fields[3]),
        cpu_s=(int(fields[11]) + int(fields[12])) / TICKS_PER_S,
    )


def _pss_bytes(pid: int) -> int:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
