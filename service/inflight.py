"""Requests between their arrival and the end of their answer: counted, timed, waited for."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.load_meter import LoadMeter
from service.metrics import ReplicaMetrics

_OUTCOMES = {429: "overloaded", 503: "draining", 504: "timeout"}


@dataclass(slots=True)
class Exchange:
    """One request on its way; ``status`` is set when its answer begins."""

    status: int | None = None

    @property
    def outcome(self) -> str:
        """Say how it ended, as the metrics name it; a client that left counts as its own error."""
        if self.status is None:
            return "client_error"
        usual = "ok" if self.status < 400 else "client_error" if self.status < 500 else "error"
        return _OUTCOMES.get(self.status, usual)


class InFlight:
    """The requests that one replica has accepted and not yet answered."""

    def __init__(self, metrics: ReplicaMetrics, meter: LoadMeter) -> None:
        """None yet; ``metrics`` are told of all, ``meter`` of good answers."""
        self._metrics = metrics
        self._meter = meter
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    @property
    def count(self) -> int:
        """How many they are."""
        return self._count

    @contextmanager
    def track(self, route: str) -> Iterator[Exchange]:
        """Count a request until its answer is sent, then record how it ended and how long it took."""
        exchange = Exchange()
        started = time.perf_counter()
        self._count += 1
        self._none.clear()
        try:
            yield exchange
        finally:
            self._count -= 1
            if self._count == 0:
                self._none.set()
            seconds = time.perf_counter() - started
            self._metrics.requests.labels(route, exchange.outcome).inc()
            self._metrics.request_duration.labels(route).observe(seconds)
            if exchange.outcome == "ok":
                self._meter.answered(seconds)

    async def none(self) -> None:
        """Wait until there is none."""
        await self._none.wait()
