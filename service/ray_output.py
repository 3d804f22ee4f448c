"""What Ray prints by itself while a service ends.

Serve ends its controller with ``ray.kill``, under the very calls that wait for this end: the shutdown itself and the
long poll of every handle. Ray prints each of them on stdout as a failure to be retried. Those lines are no news; any
other is.
"""

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

EXPECTED = re.compile(r"\(raylet\).* Task ServeController\.\w+ failed\..* killed by `ray\.kill`\.\s*$")


@contextmanager
def ending() -> Iterator[None]:
    """While the block runs, leave out the expected lines on stdout and send all others to stderr."""
    lines = _Lines(sys.stderr)
    with redirect_stdout(lines):
        yield


class _Lines(io.TextIOBase):
    """Passes on whole lines that are not expected."""

    def __init__(self, target: TextIO) -> None:
        self._target = target
        self._begun = ""

    def write(self, text: str) -> int:
        *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            if not EXPECTED.search(line):
                self._target.write(f"{line}\n")
        return len(text)
