"""Replies grouped by the part of a run they fell in, and the figures of each group."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.histogram import LatencyHistogram
from loadtests.records import Reply

QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A span of the run's clock, in seconds."""

    start_s: float
    end_s: float

    def touches(self, reply: Reply) -> bool:
        """True when the request was due, waiting or under way at some moment of the window."""
        return reply.intended_s < self.end_s and reply.done_s > self.start_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What a group of replies adds up to."""

    name: str
    seconds: float
    """How long the phase lasted, or the sum over its windows."""
    offered_rate: float | None
    """Requests per second that the arrival process was told to send; None for windows, where more are counted: those
    that reach into them."""
    requests: int
    failures: dict[str, int]
    """Failed requests by status or transport error."""
    latency: LatencyHistogram
    """Seconds from the intended send time, of the good answers."""
    lag: LatencyHistogram
    """Seconds by which the generator sent late: its own share of the latency."""

    @property
    def failed(self) -> int:
        """Requests without a 200."""
        return sum(self.failures.values())

    @property
    def achieved_rate(self) -> float:
        """Good answers per second; NaN where there is no offered rate to compare it with."""
        if self.offered_rate is None or not self.seconds:
            return math.nan
        return (self.requests - self.failed) / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON: seconds, rates and quantiles; None stands for a figure that does not exist."""
        figures: dict[str, Any] = {
            "name": self.name,
            "seconds": self.seconds,
            "offered_rate": self.offered_rate,
            "achieved_rate": self.achieved_rate,
            "requests": self.requests,
            "failed": self.failed,
            "failures": self.failures,
            "mean_s": self.latency.mean_s,
            "max_s": self.latency.max_s,
            "send_lag_p99_s": self.lag.quantile(0.99),
            **{f"p{quantile * 100:g}_s": self.latency.quantile(quantile) for quantile in QUANTILES},
        }
        absent = {key: None for key, value in figures.items() if isinstance(value, float) and math.isnan(value)}
        return figures | absent


def summarize(name: str, replies: Iterable[Reply], *, seconds: float, offered_rate: float | None = None) -> Phase:
    """Return the phase that ``replies`` make."""
    replies = list(replies)
    return Phase(
        name=name,
        seconds=seconds,
        offered_rate=offered_rate,
        requests=len(replies),
        failures=dict(Counter(reply.error or str(reply.status) for reply in replies if reply.failed)),
        latency=LatencyHistogram(reply.latency_s for reply in replies if not reply.failed),
        lag=LatencyHistogram(reply.sent_s - reply.intended_s for reply in replies),
    )


def split_by_windows(replies: Iterable[Reply], windows: Sequence[Window]) -> tuple[list[Reply], list[Reply]]:
    """Return the replies that touch a window and those that touch none; windows are in order and do not overlap."""
    inside: list[Reply] = []
    outside: list[Reply] = []
    ends_s = [window.end_s for window in windows]
    for reply in replies:
        # Of the windows that end after it was due, the first is the one it can reach soonest.
        place = bisect_right(ends_s, reply.intended_s)
        touched = place < len(windows) and windows[place].touches(reply)
        (inside if touched else outside).append(reply)
    return inside, outside


def seconds_of(windows: Sequence[Window]) -> float:
    """Return the summed length of windows that do not overlap."""
    return sum(window.end_s - window.start_s for window in windows)
