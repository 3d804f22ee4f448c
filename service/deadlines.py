"""Until when a request wants its answer: ``x-deadline-ms``, at the latest the service's own limit."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from service.errors import Invalid

HEADER = "x-deadline-ms"
LONGEST_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """A point in time, and how it came to be."""

    at: float
    """Time of the running event loop, in seconds."""
    limit_s: float
    """Seconds that there were from the request's arrival."""
    wanted: bool = False
    """Whether the request itself set it."""

    @classmethod
    def in_seconds(cls, limit_s: float) -> Self:
        """Return the one that is ``limit_s`` from now."""
        return cls(at=asyncio.get_running_loop().time() + limit_s, limit_s=limit_s)

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return asyncio.get_running_loop().time() >= self.at

    def __str__(self) -> str:
        """Say how long it was."""
        return f"the {self.limit_s:g} s of {HEADER}" if self.wanted else f"{self.limit_s:g} s"


def deadline_of(headers: Mapping[str, str], arrived_at: float, request_timeout_s: float) -> Deadline:
    """Return the deadline of a request.

    Args:
        headers: its headers; ``x-deadline-ms`` is the number of milliseconds after which nobody waits any more.
        arrived_at: when this process took it up, as the running event loop tells time.
        request_timeout_s: the service's own limit, which no header extends.

    Raises:
        Invalid: the header is no whole number of milliseconds from 1 to a day.
    """
    wanted = headers.get(HEADER)
    if wanted is not None:
        if not (wanted.isascii() and wanted.isdecimal() and len(wanted) < 10 and 1 <= int(wanted) <= LONGEST_MS):
            raise Invalid(f"{HEADER} must be whole milliseconds from 1 to {LONGEST_MS}, not {wanted[:20]!r}.")
        if (limit_s := int(wanted) / 1e3) < request_timeout_s:
            return Deadline(at=arrived_at + limit_s, limit_s=limit_s, wanted=True)
    return Deadline(at=arrived_at + request_timeout_s, limit_s=request_timeout_s)
