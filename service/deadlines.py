"""Until when a request wants its answer: ``x-deadline-ms``, at the latest the service's own limit."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from service.errors import Invalid

HEADER = "x-deadline-ms"
LONGEST_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time, and what it is counted from."""

    at: float
    """Time of the running event loop, in seconds."""
    limit_s: float
    """Seconds from the request's arrival."""

    def check(self) -> None:
        """Raise TimeoutError if it has passed."""
        if asyncio.get_running_loop().time() >= self.at:
            raise TimeoutError


def deadline_of(headers: Mapping[str, str], request_timeout_s: float) -> Deadline:
    """Return the deadline of a request that arrives now.

    Args:
        headers: its headers; ``x-deadline-ms`` is the number of milliseconds after which nobody waits any more.
        request_timeout_s: the service's own limit, which no header extends.

    Raises:
        Invalid: the header is no whole number of milliseconds from 1 to a day.
    """
    limit_s = request_timeout_s
    wanted = headers.get(HEADER)
    if wanted is not None:
        if not (wanted.isascii() and wanted.isdecimal() and len(wanted) < 10 and 1 <= int(wanted) <= LONGEST_MS):
            raise Invalid(f"{HEADER} must be whole milliseconds from 1 to {LONGEST_MS}, not {wanted[:20]!r}.")
        limit_s = min(limit_s, int(wanted) / 1e3)
    return Deadline(asyncio.get_running_loop().time() + limit_s, limit_s)
