"""What the governor sees and does, on the control page."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from service.governor.moves import Move, Stay, Why
from service.governor.observation import Observation

DIRECTIONS: Final = ("sparser", "denser")


class GovernorMetrics:
    """One governor's metrics, in the registry of the control page."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything; the gauges of what is seen stay where they were when it was last active."""
        self._registry = registry
        self._active = self._gauge("active", "1 while the governor turns the dial")
        self._level = self._gauge("level", "Sparsity, as asked for, of the level that it has answer")
        self._wanted_level = self._gauge("wanted_level", "The same of the level that it wants, asked for or answering")
        self._capacity = self._gauge("capacity_tokens_per_second", "What that level holds, measured or predicted")
        self._arrived = self._gauge("arrived_tokens_per_second", "What comes, refused requests included")
        self._refused = self._gauge("refused_per_second", "Requests refused for want of room")
        self._queue = self._gauge("queue_seconds", "What waits, in the replica where it needs longest")
        self._utilisation = self._gauge("utilisation_ratio", "Share of time that the lanes of the busiest replica work")
        self._model_share = self._gauge("model_share_ratio", "Share of processor time that the model takes")
        self._moves = Counter(
            "sparsedial_governor_moves", "Changes of level that it asked for", ["direction", "why"], registry=registry
        )
        self._ticks = Counter("sparsedial_governor_ticks", "Decisions", ["why"], registry=registry)
        for why in Why:
            self._ticks.labels(why.value)
        for direction in DIRECTIONS:
            self._moves.labels(direction, (Why.QUEUE if direction == "sparser" else Why.CALM).value)

    def rests(self) -> None:
        """Show that the operator turns the dial."""
        self._active.set(0)

    def decided(self, seen: Observation, decision: Move | Stay, capacity: float | None) -> None:
        """Show what a tick saw and came to; ``capacity`` is that of the level that answers."""
        self._active.set(1)
        self._level.set(seen.level.sparsity)
        if isinstance(decision, Move):
            self._wanted_level.set(decision.level.sparsity)
        elif not seen.changing:  # what it asked for stays wanted until it answers
            self._wanted_level.set(seen.level.sparsity)
        self._capacity.set(float("nan") if capacity is None else capacity)
        self._arrived.set(seen.fast.arrived_per_s)
        self._refused.set(seen.fast.refused_per_s)
        self._queue.set(seen.queue_s)
        self._utilisation.set(seen.fast.utilisation)
        self._model_share.set(seen.fast.model_share)
        self._ticks.labels(decision.reason.why.value).inc()

    def moved(self, move: Move) -> None:
        """Count a change of level that was asked for."""
        self._moves.labels(DIRECTIONS[0] if move.sparser else DIRECTIONS[1], move.reason.why.value).inc()

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"sparsedial_governor_{name}", text, registry=self._registry)
