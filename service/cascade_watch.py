"""Looks at what live traffic says of the policy's cascade, and switches it off where it does not hold its agreement.

The committed variant is none of its business, and the policy keeps what the operator wished: a cascade that was
switched off answers again once the policy sets one.
"""

import logging
from typing import Any

from service.cascade_metrics import CascadeMetrics
from service.documents import online_document
from service.event_log import EventLog
from service.evidence import Evidence, Mark
from service.guard import agreement_floor, disagreement
from service.ladder_cascades import LadderCascade
from service.policy_desk import PolicyDesk

logger = logging.getLogger(__name__)


class CascadeWatch:
    """One controller's eye on the cascades of its ladder."""

    def __init__(self, desk: PolicyDesk, evidence: Evidence, metrics: CascadeMetrics, log: EventLog) -> None:
        """Know nothing yet.

        Args:
            desk: keeps the policy, and the cascades that it may name.
            evidence: what replicas counted.
            metrics: of the control page.
            log: is told when the cascade is switched off.
        """
        self._desk = desk
        self._evidence = evidence
        self._metrics = metrics
        self._log = log
        self._since: tuple[int, Mark] | None = None
        """How often the policy had set a cascade when the present one began, and what had been counted by then."""

    async def look(self) -> None:
        """Show how the cascades fare; switch the policy's one off if it is surely below its floor."""
        mark = self._began()
        policy, choice, chosen = self._desk.policy, self._desk.policy.cascade, self._desk.chosen_cascades
        if choice is not None and self._desk.cascade_off is None:
            for one in chosen:
                seen = self._evidence.since(mark, one.cascade.cascade_id)
                words = disagreement(policy, one.cascade.evaluation, seen) if seen.texts else None
                if words is not None and await self._desk.switch_cascade_off(choice, words):
                    logger.warning(
                        "cascade=%s level=%s asked_by=guard: switched off, reason=%r",
                        *(one.cascade.cascade_id, one.level.variant_id, words),
                    )
                    self._log.append("cascade", self.document() or {})
        self._show()

    def document(self) -> dict[str, Any] | None:
        """Return what ``GET /admin/sparsity`` shows of the policy's cascade; None where it names none."""
        choice = self._desk.policy.cascade
        if choice is None:
            return None
        return {
            "sparsity": choice.sparsity,
            "agreement_target": choice.agreement,
            "active": self._desk.cascade_off is None,
            "off": self._desk.cascade_off,
            "of": [self._worth(one) for one in self._desk.chosen_cascades],
        }

    def _began(self) -> Mark:
        """Return when what is watched began; what a controller finds at its start counts from the beginning."""
        times = self._desk.cascade_settings
        if self._since is None or self._since[0] != times:
            self._since = times, Mark({}) if self._since is None else self._evidence.mark()
        return self._since[1]

    def _worth(self, one: LadderCascade) -> dict[str, Any]:
        evaluation = one.cascade.evaluation
        return {
            "cascade": one.cascade.cascade_id,
            "level": one.level.variant_id,
            "accuracy": evaluation.accuracy,
            "agreement": evaluation.agreement,
            "agreement_floor": agreement_floor(self._desk.policy, evaluation),
            "online": online_document(self._evidence.total(one.cascade.cascade_id)),
        }

    def _show(self) -> None:
        wanted, chosen = self._desk.policy.cascade is not None, self._desk.chosen_cascades
        self._metrics.set_default(
            wanted=wanted,
            active=wanted and self._desk.cascade_off is None,
            floor=agreement_floor(self._desk.policy, chosen[0].cascade.evaluation) if chosen else None,
        )
        shown: set[tuple[float, float]] = set()
        for one in self._desk.cascades:
            seen = self._evidence.total(one.cascade.cascade_id)
            if seen.texts and (one.sparsity, one.cascade.target) not in shown:  # of several precisions the usual one
                shown.add((one.sparsity, one.cascade.target))
                self._metrics.set_online(one, seen)
