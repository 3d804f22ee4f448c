"""The metrics of the control page: swaps, their phases, and what every level of the ladder costs and buys."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from service.cascade_metrics import CascadeMetrics
from service.governor_metrics import GovernorMetrics
from service.operations import Operation, Phase
from service.policy import Policy
from service.tally import Tally

PAGE_TYPE: Final = CONTENT_TYPE_LATEST
_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_OUTCOMES = (Phase.COMMITTED, Phase.FAILED, Phase.ROLLED_BACK)

_LEVEL_GAUGES = {
    "level_accuracy_ratio": ("accuracy", "Accuracy on the evaluation rows"),
    "level_accuracy_low_ratio": ("accuracy_low", "Lower end of the accuracy's 95 % interval"),
    "level_accuracy_high_ratio": ("accuracy_high", "Upper end of the accuracy's 95 % interval"),
    "level_agreement_ratio": ("agreement", "Share of evaluation rows answered as the dense model answers them"),
    "level_achieved_sparsity_ratio": ("achieved_sparsity", "Share of prunable weights really removed"),
    "level_latency_seconds": ("latency_s", "Measured median latency of one text on the CPU"),
    "level_items_per_second": ("items_per_s", "Measured texts per second in batches on the CPU"),
    "level_macs": ("macs", "Multiply-accumulates of one text at the stated length"),
}
"""Gauge -> (value of ``_level_values``, help)."""


_ONLINE_GAUGES = {
    "online_texts": "Texts of live traffic that the dense model answered too",
    "online_agreement_ratio": "Share of them with the dense model's label",
    "online_agreement_low_ratio": "Lower end of its 95 % interval",
    "online_agreement_high_ratio": "Upper end of its 95 % interval",
    "online_labelled_texts": "Texts of live traffic whose true label was posted back",
    "online_accuracy_ratio": "Share of them that were labelled so",
}


class ControlMetrics:
    """One controller's metrics, in a registry of their own."""

    def __init__(self) -> None:
        """Make the registry and everything in it."""
        self.registry = CollectorRegistry()
        self._swaps = Counter(
            "sparsedial_swaps", "Changes of the serving variant that ended", ["outcome"], registry=self.registry
        )
        self._durations = Histogram(
            "sparsedial_swap_phase_duration_seconds",
            "Seconds per phase of a change; commit ends when the last live replica answers with the new variant",
            ["phase"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._generation = self._gauge("controller_generation", "Generation committed last")
        self._replicas = self._gauge("controller_replicas", "Live model replicas")
        self._in_progress = self._gauge("controller_operation_in_progress", "1 while a change runs")
        self._floor = self._gauge("accuracy_floor_ratio", "Accuracy below which nothing is promoted")
        self._target = self._gauge(
            "slo_p99_seconds", "Seconds for 99 of 100 requests, as the policy wants; NaN without"
        )
        self._levels = {
            name: Gauge(f"sparsedial_{name}", text, ["sparsity"], registry=self.registry)
            for name, (_, text) in _LEVEL_GAUGES.items()
        }
        self._online = {
            name: Gauge(f"sparsedial_{name}", text, ["sparsity"], registry=self.registry)
            for name, text in _ONLINE_GAUGES.items()
        }
        self.governor = GovernorMetrics(self.registry)
        self.cascades = CascadeMetrics(self.registry)
        for outcome in _OUTCOMES:
            self._swaps.labels(outcome.value)
        for phase in ("build", "prepare", "try", "commit", "total"):
            self._durations.labels(phase)

    def operation_ended(self, operation: Operation) -> None:
        """Count a finished operation and the seconds of its phases."""
        self._swaps.labels(operation.phase.value).inc()
        for phase, seconds in operation.durations_s().items():
            self._durations.labels(phase).observe(max(0.0, seconds))

    def commit_seen_everywhere(self, seconds: float) -> None:
        """Record the time from the decision to commit until the last live replica had followed."""
        self._durations.labels("commit").observe(seconds)

    def set_controller(self, *, generation: int, replicas: int, running: bool, policy: Policy) -> None:
        """Show where the controller stands, and what the policy asks of it."""
        self._generation.set(generation)
        self._replicas.set(replicas)
        self._in_progress.set(running)
        self._floor.set(policy.accuracy_floor)
        self._target.set(float("nan") if policy.slo_p99_ms is None else policy.slo_p99_ms / 1e3)

    def set_levels(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Show the ladder's frontier: rows as ``GET /admin/frontier`` gives them, one per level, replacing all others.

        The label is the level as asked for (``0.5``), so that it takes no more values than the ladder has levels.
        """
        levels = [(f"{row['requested_sparsity']:g}", _level_values(row)) for row in rows]
        for name, (member, _) in _LEVEL_GAUGES.items():
            self._levels[name].clear()
            for label, values in levels:
                self._levels[name].labels(label).set(values[member])

    def set_online(self, level: str, seen: Tally) -> None:
        """Show what live traffic says of a level of the ladder; shares of nothing are left out."""
        low, high = seen.agreement_interval
        values = {"online_texts": float(seen.texts), "online_labelled_texts": float(seen.labelled)}
        if seen.agreement is not None:
            values |= {"online_agreement_ratio": seen.agreement}
            values |= {"online_agreement_low_ratio": low, "online_agreement_high_ratio": high}
        if seen.labelled:
            values |= {"online_accuracy_ratio": seen.right / seen.labelled}
        for name, value in values.items():
            self._online[name].labels(level).set(value)

    def page(self) -> bytes:
        """Return the Prometheus text, to be sent as ``PAGE_TYPE``."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"sparsedial_{name}", text, registry=self.registry)


def _level_values(row: Mapping[str, Any]) -> dict[str, float]:
    """Return a frontier row's numbers in base units."""
    low, high = row["accuracy_interval"]
    return {
        "accuracy": row["accuracy"],
        "accuracy_low": low,
        "accuracy_high": high,
        "agreement": row["agreement"],
        "achieved_sparsity": row["achieved_sparsity"],
        "latency_s": row["latency_p50_ms"] / 1e3,
        "items_per_s": row["items_per_s"],
        "macs": row["macs"],
    }
