"""The generator goes first: on a machine that it shares with the service, requests must leave when they are due.

A process that waits for a processor sends late, and what it then measures is its own waiting. Reports say at which
priority it ran, and how late it sent.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FIRST = -20
AUTOGROUP = Path("/proc/self/autogroup")
"""Linux shares processors among sessions before it does among processes; this is where a session's share is set."""


@contextmanager
def going_first() -> Iterator[None]:
    """Raise this process, and its session, above all others; leave both as they are where that is not allowed.

    The session outlives the process, as a terminal's shell does: afterwards it has its own share again.
    """
    before = None
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, FIRST)
    with suppress(OSError):
        before = re.search(r"nice (-?\d+)", AUTOGROUP.read_text(encoding="ascii"))
        AUTOGROUP.write_text(str(FIRST), encoding="ascii")
    try:
        yield
    finally:
        if before is not None:
            with suppress(OSError):
                AUTOGROUP.write_text(before[1], encoding="ascii")


def told() -> str:
    """Return at which priority this process runs, in words."""
    return f"nice {os.getpriority(os.PRIO_PROCESS, 0)}"
