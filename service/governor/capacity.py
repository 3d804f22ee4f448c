"""What each level holds: measured while its lanes are full, and predicted for the others."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from service.governor.levels import Level
from service.governor.observation import Flow, Observation

FULL, WAITING_S = 0.9, 0.05
"""Share of time that lanes are busy, and seconds of work that waits, from which batches are as full as they get."""
FORGET_S = 300.0
"""A measure counts for this long: texts, and what else runs on the machine, change."""
RISING, FALLING = 0.7, 0.3
"""Weight of a new reading against those before it: the first ones are of batches that were not full yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What a level was seen to hold."""

    tokens_per_s: float
    """Of one replica with busy lanes."""
    model_share: float
    """Share of the processor time that the model took meanwhile."""
    at_s: float


def _nothing() -> Mapping[Level, Measure]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was measured of the levels."""

    measures: Mapping[Level, Measure] = field(default_factory=_nothing)

    def learned(self, observation: Observation) -> "Capacity":
        """Return this with what ``observation`` shows of the level that answers, if its lanes are full.

        The busiest replica counts: where requests are shared out evenly the others get no more than it can take.
        """
        flow, level = observation.fast, observation.level
        if flow.utilisation < FULL or observation.queue_s < WAITING_S or flow.answered_per_s <= 0:
            return self
        reading = _busy_rate(flow) / observation.replicas
        known = self._fresh(level, observation.now_s)
        if known is not None:
            weight = RISING if reading > known.tokens_per_s else FALLING
            reading = weight * reading + (1 - weight) * known.tokens_per_s
        measure = Measure(tokens_per_s=reading, model_share=flow.model_share, at_s=observation.now_s)
        return replace(self, measures=MappingProxyType({**self.measures, level: measure}))

    def measured(self, level: Level, observation: Observation) -> float | None:
        """Return the tokens a second that all replicas were lately seen to hold at ``level``; None if they were not."""
        own = self._fresh(level, observation.now_s)
        return None if own is None else own.tokens_per_s * observation.replicas

    def of(self, level: Level, observation: Observation) -> float | None:
        """Return the tokens a second that all replicas hold at ``level``; None if nothing lately measured says so.

        Without a measure of its own it is predicted from the newest one of another level, as no more than a faster
        level holds and no less than a slower one.
        """
        own = self.measured(level, observation)
        if own is not None:
            return own
        fresh = {one: measure for one in self.measures if (measure := self._fresh(one, observation.now_s))}
        if not fresh:
            return None
        nearest = max(fresh, key=lambda one: fresh[one].at_s)
        predicted = fresh[nearest].tokens_per_s / cost_ratio(nearest, level, fresh[nearest].model_share)
        slower = [fresh[one].tokens_per_s for one in fresh if one.items_per_s <= level.items_per_s]
        faster = [fresh[one].tokens_per_s for one in fresh if one.items_per_s >= level.items_per_s]
        return min(max([predicted, *slower]), *faster, math.inf) * observation.replicas

    def at_least(self, level: Level, observation: Observation) -> float:
        """Return ``of``; without a measure, what the level that answers shows now, which is no more than it holds."""
        known = self.of(level, observation)
        if known is not None:
            return known
        return _busy_rate(observation.fast) / self.ratio(level, observation)

    def ratio(self, level: Level, observation: Observation) -> float:
        """Return what a token costs at ``level`` in units of what it costs at the level that answers."""
        here, there = self.of(observation.level, observation), self.of(level, observation)
        if here is None or there is None:
            return cost_ratio(observation.level, level, observation.slow.model_share)
        return here / there

    def _fresh(self, level: Level, now_s: float) -> Measure | None:
        measure = self.measures.get(level)
        return measure if measure is not None and now_s - measure.at_s <= FORGET_S else None


def cost_ratio(here: Level, there: Level, model_share: float) -> float:
    """Return what a token costs ``there`` in units of what it costs ``here``.

    By Amdahl's law: only the model's share of the cost follows the level. Pessimistic where the rest is computed
    beside the model and not in its place, as on a GPU; what is measured then corrects it.
    """
    return model_share * here.items_per_s / there.items_per_s + 1 - model_share


def _busy_rate(flow: Flow) -> float:
    return flow.answered_per_s / flow.utilisation if flow.utilisation > 0 else 0.0
