"""What live traffic says of the ladder's cascades, and whether the policy's one answers, on the control page."""

from prometheus_client import CollectorRegistry, Gauge

from service.ladder_cascades import LadderCascade
from service.tally import Tally

LABELS = ("sparsity", "target")
"""Of the level, as asked for; agreement that the threshold was calibrated for."""


class CascadeMetrics:
    """The metrics of cascades, in the registry of the control page."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything; nothing is shown of a cascade that was not compared."""
        self._registry = registry
        self._wanted = self._gauge("wanted", "1 while the policy names a cascade")
        self._active = self._gauge("active", "1 while that cascade answers: 0 once the guard switched it off")
        self._floor = self._gauge("agreement_floor_ratio", "Agreement on live traffic that it must hold; NaN without")
        self._offline = self._gauge("agreement_ratio", "Share of evaluation rows answered as by the dense model", True)
        self._texts = self._gauge("online_texts", "Texts of live traffic that the dense model answered too", True)
        self._online = self._gauge("online_agreement_ratio", "Share of them with the dense model's label", True)
        self._low = self._gauge("online_agreement_low_ratio", "Lower end of its 95 % interval", True)
        self._high = self._gauge("online_agreement_high_ratio", "Upper end of its 95 % interval", True)

    def set_default(self, *, wanted: bool, active: bool, floor: float | None) -> None:
        """Show where the policy's cascade stands; ``floor`` is that of its agreement on live traffic."""
        self._wanted.set(wanted)
        self._active.set(active)
        self._floor.set(float("nan") if floor is None else floor)

    def set_online(self, of: LadderCascade, seen: Tally) -> None:
        """Show what live traffic says of a cascade beside what rows say; ``seen`` must have texts compared."""
        labels = f"{of.sparsity:g}", f"{of.cascade.target:g}"
        low, high = seen.agreement_interval
        self._offline.labels(*labels).set(of.cascade.evaluation.agreement)
        self._texts.labels(*labels).set(seen.texts)
        self._online.labels(*labels).set(seen.agreed / seen.texts)
        self._low.labels(*labels).set(low)
        self._high.labels(*labels).set(high)

    def _gauge(self, name: str, text: str, labelled: bool = False) -> Gauge:
        return Gauge(f"sparsedial_cascade_{name}", text, LABELS if labelled else (), registry=self._registry)
