"""How long the controller waits, and where it takes the time from."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_WAIT_S = 300.0
"""Longest that a request may ask to wait for a change to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlLimits:
    """How long the controller waits."""

    lease_s: float = 3.0
    """A replica silent for longer is taken for dead."""
    poll_s: float = 1.0
    """How long a replica's question waits for news."""
    tick_s: float = 0.25
    """How often leases and deadlines are looked at."""
    build_timeout_s: float = 1800.0
    prepare_timeout_s: float = 120.0


def _steady_wall() -> Callable[[], float]:
    """Return a clock of Unix seconds that goes on from now without the steps of the system's clock."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Where time comes from: Unix seconds for what is kept, monotonic seconds for leases. Neither goes back."""

    wall: Callable[[], float] = field(default_factory=_steady_wall)
    monotonic: Callable[[], float] = time.monotonic
