"""What each level holds: measured while its lanes are busy, and predicted for the others.

What counts is the most that was seen, for minutes: a moment in which something else had the processor says nothing of a
level. Only what full lanes answer for a second without a break is taken for all that a level holds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from service.governor.levels import Level
from service.governor.observation import Observation

BUSY = 0.5
"""Share of time from which lanes show at least what they hold; batches may still be small."""
FULL, WAITING_S = 0.9, 0.05
"""Share of time that lanes are busy, and seconds of work that waits, from which batches are as full as they get."""
SOLID, EPISODE_S = 4, 1.0
"""Readings of full lanes in a row, none later than this after the one before, that make sure what a level holds."""
WEIGHT = 0.4
"""Of a new reading of full lanes against those before it."""
FORGET_S = 60.0
"""What they made sure counts for this long."""
HALF_LIFE_S = 600.0
"""In which the most that was ever seen loses half: texts, and what else runs on the machine, change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What a level was seen to hold: tokens a second of one replica."""

    best_per_s: float
    """The most that busy lanes answered, as of ``at_s``."""
    at_s: float
    model_share: float
    """Share of the processor time that the model took at the last reading."""
    full_per_s: float = 0.0
    """What full lanes answered last."""
    full_at_s: float = -math.inf
    readings: int = 0
    """Of full lanes, in a row."""

    def best(self, now_s: float) -> float:
        """Return the most that was seen, less what time takes away."""
        return float(self.best_per_s * 0.5 ** ((now_s - self.at_s) / HALF_LIFE_S))

    def surely(self, now_s: float) -> float | None:
        """Return what full lanes made sure; None if they did not lately."""
        is_solid = self.readings >= SOLID and now_s - self.full_at_s <= FORGET_S
        return self.full_per_s if is_solid else None

    def with_full_lanes(self, reading: float, now_s: float) -> "Measure":
        """Return this with a reading of full lanes."""
        if now_s - self.full_at_s > EPISODE_S:
            return replace(self, full_per_s=reading, full_at_s=now_s, readings=1)
        full_per_s = WEIGHT * reading + (1 - WEIGHT) * self.full_per_s
        return replace(self, full_per_s=full_per_s, full_at_s=now_s, readings=self.readings + 1)


def _nothing() -> Mapping[Level, Measure]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was measured of the levels."""

    measures: Mapping[Level, Measure] = field(default_factory=_nothing)

    def learned(self, seen: Observation) -> "Capacity":
        """Return this with what is seen of the level that answers, if its lanes are busy enough to show anything.

        The busiest replica counts: where requests are shared out evenly the others get no more than it can take.
        """
        flow, now_s = seen.fast, seen.now_s
        if flow.utilisation < BUSY or flow.answered_per_s <= 0:
            return self
        reading = flow.answered_per_s / flow.utilisation / seen.replicas
        known = self.measures.get(seen.level, Measure(best_per_s=0.0, at_s=now_s, model_share=1.0))
        measure = replace(known, best_per_s=max(reading, known.best(now_s)), at_s=now_s, model_share=flow.model_share)
        if flow.utilisation >= FULL and seen.queue_s >= WAITING_S:
            measure = measure.with_full_lanes(reading, now_s)
        return Capacity(MappingProxyType({**self.measures, seen.level: measure}))

    def of(self, level: Level, seen: Observation) -> float | None:
        """Return the tokens a second that all replicas hold at ``level``; None if nothing was measured of any.

        Where full lanes did not make it sure, it is the most that was seen of it, or that follows from what was seen
        of another level, and no more than a faster level surely holds.
        """
        now_s = seen.now_s
        sure = {one: rate for one, measure in self.measures.items() if (rate := measure.surely(now_s)) is not None}
        if level in sure:
            return sure[level] * seen.replicas
        if not self.measures:
            return None
        follows = max(
            measure.best(now_s) / cost_ratio(one, level, measure.model_share) for one, measure in self.measures.items()
        )
        limit = min((sure[one] for one in sure if one.items_per_s >= level.items_per_s), default=math.inf)
        return min(follows, limit) * seen.replicas

    def ratio(self, level: Level, seen: Observation) -> float:
        """Return what a token costs at ``level`` in units of what it costs at the level that answers.

        What full lanes made sure of both counts, else Amdahl's law: the most that was seen of one is not to be compared
        with what is sure of another.
        """
        here, there = (
            measure.surely(seen.now_s) if (measure := self.measures.get(one)) is not None else None
            for one in (seen.level, level)
        )
        if here is None or there is None:
            return cost_ratio(seen.level, level, seen.fast.model_share)
        return here / there


def cost_ratio(here: Level, there: Level, model_share: float) -> float:
    """Return what a token costs ``there`` in units of what it costs ``here``.

    By Amdahl's law: only the model's share of the cost follows the level. Pessimistic where the rest is computed
    beside the model and not in its place, as on a GPU; what is measured then corrects it.
    """
    return model_share * here.items_per_s / there.items_per_s + 1 - model_share
