"""Keep-alive connections, each of which knows its own number.

aiohttp does not say which pooled connection carried an answer, so the pool here is made of *lanes*: sessions limited
to one connection, each used by one request at a time. It costs about 0.15 ms of CPU per request.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace, TracebackType
from typing import Self

import aiohttp

from loadtests.records import Reply
from loadtests.target import Target

# Below uvicorn's 5 s, so that an idle connection is closed from here and never while a request is on its way.
KEEPALIVE_S = 4.0
TIME_HEADERS = ("x-tokenization-time", "x-queue-time", "x-inference-time", "x-total-time")
"""Headers that say in milliseconds where an answer's time went."""


class Clock:
    """Seconds since the run began."""

    def __init__(self) -> None:
        """Start at zero."""
        self._origin = time.perf_counter()

    def now(self) -> float:
        """Return the seconds since the clock was made."""
        return time.perf_counter() - self._origin


class Lane:
    """One keep-alive connection, opened at the first request and again whenever the peer has closed it."""

    def __init__(
        self, target: Target, clock: Clock, numbers: Iterator[int], timeout_s: float, *, read_labels: bool
    ) -> None:
        """Prepare a session; ``numbers`` gives every new connection of the run its number."""
        self._target = target
        self._read_labels = read_labels
        self._clock = clock
        self._numbers = numbers
        self._connection = -1
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._connected)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, keepalive_timeout=KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=target.headers,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            trace_configs=[trace],
        )

    async def send(self, index: int, intended_s: float, body: bytes) -> Reply:
        """Post one body and return what came of it; a transport failure is a reply with status 0."""
        sent_s = self._clock.now()
        status, error, generation, sparsity, retry_after, label = 0, None, None, None, None, None
        times_ms: dict[str, float] = {}
        try:
            async with self._session.post(self._target.endpoint, data=body) as response:
                answer = await response.read()
                status = response.status
                generation = _whole(response.headers.get("x-generation"))
                sparsity = _number(response.headers.get("x-sparsity"))
                told = {name: _number(response.headers.get(name)) for name in TIME_HEADERS}
                times_ms = {name: time_ms for name, time_ms in told.items() if time_ms is not None}
                retry_after = response.headers.get("retry-after")
                label = best_label(answer) if self._read_labels else None
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            status, error = 0, type(failure).__name__
        return Reply(
            index=index,
            intended_s=intended_s,
            sent_s=sent_s,
            done_s=self._clock.now(),
            status=status,
            error=error,
            generation=generation,
            sparsity=sparsity,
            connection=self._connection,
            times_ms=times_ms,
            retry_after=retry_after,
            label=label,
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()

    async def _connected(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceConnectionCreateEndParams
    ) -> None:
        self._connection = next(self._numbers)


class LanePool:
    """At most ``size`` lanes to one target; the one used last is used first, so that few connections do the work."""

    def __init__(
        self,
        target: Target,
        *,
        size: int = 128,
        timeout_s: float = 10.0,
        clock: Clock | None = None,
        read_labels: bool = False,
    ) -> None:
        """Prepare the pool; connections are opened as they are needed."""
        self.clock = clock or Clock()
        self._read_labels = read_labels
        self._target = target
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(size)
        self._numbers = itertools.count()
        self._free: list[Lane] = []
        self._lanes: list[Lane] = []

    async def send(self, index: int, intended_s: float, body: bytes) -> Reply:
        """Post ``body`` on a free lane, waiting for one if all are busy."""
        async with self._slots:
            lane = self._free.pop() if self._free else self._new_lane()
            try:
                return await lane.send(index, intended_s, body)
            finally:
                self._free.append(lane)

    async def __aenter__(self) -> Self:
        """Return the pool."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        await asyncio.gather(*(lane.close() for lane in self._lanes))

    def _new_lane(self) -> Lane:
        lane = Lane(self._target, self.clock, self._numbers, self._timeout_s, read_labels=self._read_labels)
        self._lanes.append(lane)
        return lane


def best_label(answer: bytes) -> str | None:
    """Return the first label of a JSON answer, whose lists are best first; None where there is none."""
    try:
        value = json.loads(answer)
        while isinstance(value, list):
            value = value[0]
        return str(value["label"])
    except (ValueError, LookupError, TypeError):
        return None


def _number(text: str | None) -> float | None:
    """Return a header as a number, or None where it is absent or malformed."""
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _whole(text: str | None) -> int | None:
    """Return a header as a whole number, or None where it is absent or malformed."""
    return int(text) if text is not None and text.isdecimal() else None
