"""What happened to the dial, for whoever listens: the last events, and the next ones as they come."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

KEPT = 512
"""Events that someone who comes late may still read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEvent:
    """One event; numbers grow by one, from 1 at the controller's start."""

    number: int
    kind: str
    """``operation``, ``policy`` or ``cascade``."""
    at: str
    """RFC 3339, UTC."""
    data: dict[str, Any]


class EventLog:
    """A bounded log that can be followed. All methods run on one event loop."""

    def __init__(self) -> None:
        """Nothing happened."""
        self._events: deque[LoggedEvent] = deque(maxlen=KEPT)
        self._number = 0
        self._closed = False
        self._news = asyncio.Event()

    def append(self, kind: str, data: dict[str, Any]) -> None:
        """Tell everyone who follows."""
        self._number += 1
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._events.append(LoggedEvent(number=self._number, kind=kind, at=at, data=data))
        self._wake()

    def close(self) -> None:
        """Let those who follow go."""
        self._closed = True
        self._wake()

    async def follow(self, after: int | None = None, *, silence_s: float) -> AsyncIterator[LoggedEvent | None]:
        """Give the events after number ``after`` as they come, until the log is closed.

        Args:
            after: 0 gives all that are kept; None only those to come. A number that was never given, as by a
                controller before this one, counts as 0.
            silence_s: after so many seconds without an event None is given, so that a connection shows its life.
        """
        seen = self._number if after is None else after if after <= self._number else 0
        while not self._closed:
            news = self._news
            for event in [event for event in self._events if event.number > seen]:
                seen = event.number
                yield event
            if seen < self._number:
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(silence_s):
                    await news.wait()
                    continue
            yield None

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
