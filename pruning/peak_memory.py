"""How much memory a piece of work takes: what the process held at most, as Linux counts it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pruning.freed_memory import give_back

PROCESS = Path("/proc/self")


@contextmanager
def peak_memory(process: Path = PROCESS) -> Iterator[list[int]]:
    """Give a list that once the block ended holds the bytes of its peak above what was held when it began.

    What was freed before is given back first, so that work done earlier in the process does not hide what this takes.
    All threads of the process count. Where there is no Linux to say it the list stays empty.
    """
    give_back()
    peak: list[int] = []
    before = _begin_anew(process)
    yield peak
    if before is not None:
        peak.append(max(0, _held(process, "VmHWM") - before))


def _begin_anew(process: Path) -> int | None:
    """Return the bytes held now, which are the peak from here on; None where that cannot be asked for."""
    try:
        (process / "clear_refs").write_text("5", encoding="ascii")
        return _held(process, "VmRSS")
    except OSError:
        return None


def _held(process: Path, what: str) -> int:
    """Return the bytes that the process holds (``VmRSS``), or the most since the peak began anew (``VmHWM``)."""
    status = (process / "status").read_text(encoding="ascii", errors="replace")
    found = re.search(rf"^{what}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None  # every Linux has both
    return int(found[1]) * 1024
