"""How all live replicas fare together, from the readings that each of them reports."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from service.governor.levels import Level
from service.load import Load

FAST_S, SLOW_S = 0.5, 2.0
"""Seconds over which rates are taken: to see a spike, and to see that it is over."""
NEARLY = 0.75
"""Readings come now and then: a span may be this share of what is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Rates over the last seconds, of all replicas together."""

    arrived_per_s: float
    """Tokens that came; those of refused requests are estimated by the mean of the others."""
    answered_per_s: float
    """Tokens of the batches that were done."""
    refused_per_s: float
    """Requests refused for want of room."""
    utilisation: float
    """Share of the time that the lanes were busy, of the busiest replica, in [0, 1]."""
    model_share: float
    """Share that the model took of the processor time of replicas, the rest being HTTP and tokenization; in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the governor sees at one tick."""

    now_s: float
    """Seconds of any clock that never goes back."""
    level: Level
    """What answers by default; it need not be on the ladder."""
    changing: bool
    """Whether a change of it is under way."""
    replicas: int
    """How many the rates are of; at least one."""
    fast: Flow
    """Over the last half second."""
    slow: Flow
    """Over the last two seconds."""
    queue_tokens: int
    """Tokens that wait in all replicas."""
    queue_s: float
    """Seconds that these need in the replica where they need longest."""
    p99_s: float | None
    """99th percentile of the answer time over the last two seconds, of the slowest replica; None without answers."""
    model_p99_s: float | None
    """The same of the time in queue and model alone."""


class Readings:
    """The readings of the last seconds, by replica."""

    def __init__(self) -> None:
        """Nothing was read yet."""
        self._readings: dict[str, deque[Load]] = {}

    def take(self, loads: Mapping[str, Load]) -> None:
        """Take the latest reading of every live replica; forget the others. The same reading twice counts once."""
        self._readings = {name: self._readings.get(name, deque()) for name in loads}
        for name, load in loads.items():
            readings = self._readings[name]
            if not readings or load.at_s > readings[-1].at_s:
                readings.append(load)
            while len(readings) > 2 and readings[1].at_s <= load.at_s - SLOW_S:
                readings.popleft()

    def observe(self, *, now_s: float, level: Level, changing: bool) -> Observation | None:
        """Return what was seen; None until a replica has been read twice."""
        known = [readings for readings in self._readings.values() if len(readings) > 1]
        if not known:
            return None
        latest = [readings[-1] for readings in known]
        return Observation(
            now_s=now_s,
            level=level,
            changing=changing,
            replicas=len(known),
            fast=_flow((_before(readings, FAST_S), readings[-1]) for readings in known),
            slow=_flow((_before(readings, SLOW_S), readings[-1]) for readings in known),
            queue_tokens=sum(load.queue_tokens for load in latest),
            queue_s=max(load.queue_s for load in latest),
            p99_s=_largest(load.p99_s for load in latest),
            model_p99_s=_largest(load.model_p99_s for load in latest),
        )


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _before(readings: deque[Load], seconds: float) -> Load:
    """Return the newest reading that is about ``seconds`` older than the last, or the oldest."""
    latest_s = readings[-1].at_s - NEARLY * seconds
    return next((load for load in reversed(readings) if load.at_s <= latest_s), readings[0])


def _flow(spans: Iterable[tuple[Load, Load]]) -> Flow:
    """Return the rates of all replicas together, each between two of its readings."""
    arrived = answered = refused = utilisation = model_s = loop_s = 0.0
    for start, end in spans:
        seconds = end.at_s - start.at_s
        turned_away, accepted = end.refused - start.refused, end.accepted - start.accepted
        tokens = end.accepted_tokens - start.accepted_tokens
        mean = tokens / accepted if accepted else end.accepted_tokens / max(1, end.accepted)
        arrived += (tokens + turned_away * mean) / seconds
        answered += (end.answered_tokens - start.answered_tokens) / seconds
        refused += turned_away / seconds
        utilisation = max(utilisation, min(1.0, (end.busy_s - start.busy_s) / seconds))
        model_s += (end.model_s - start.model_s) / seconds
        loop_s += (end.loop_s - start.loop_s) / seconds
    return Flow(
        arrived_per_s=arrived,
        answered_per_s=answered,
        refused_per_s=refused,
        utilisation=utilisation,
        model_share=model_s / (model_s + loop_s) if model_s + loop_s > 0 else 1.0,
    )
