"""What may be read of a controller: documents made from its parts, which it alone changes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pruning.variants import Manifest, VariantStore
from service.cascade_watch import CascadeWatch
from service.documents import online_document, status_document, targets_document
from service.durable import DurableRollout
from service.event_log import EventLog
from service.evidence import Evidence
from service.fleet import Fleet
from service.guard import p99_s
from service.operations import Choice
from service.pilot import Pilot
from service.plan import Facts
from service.policy import Policy
from service.policy_desk import PolicyDesk


@dataclass(frozen=True, slots=True)
class ControlView:
    """The reading half of the admin routes."""

    rollout: DurableRollout
    fleet: Fleet
    store: VariantStore
    desk: PolicyDesk
    evidence: Evidence
    log: EventLog
    pilot: Pilot
    cascades: CascadeWatch

    def served(self) -> tuple[int, Choice]:
        """Return (generation, variant) as committed, from memory; NotReady while the controller is starting."""
        return self.rollout.state.generation, self.rollout.state.committed

    def policy(self) -> Policy:
        """Return the policy that holds."""
        return self.desk.policy

    def status(self) -> dict[str, Any]:
        """Return what ``GET /admin/sparsity`` shows.

        Raises:
            pruning.errors.StoreError: the committed variant's manifest cannot be read.
        """
        state = self.rollout.state
        manifest = self.store.manifest(state.committed.variant_id)
        seen = self.evidence.total(manifest.variant_id)
        governor, cascade = self.pilot.document(), self.cascades.document()
        return status_document(state, manifest, self.desk.policy, self.fleet, seen, governor, cascade)

    def variants(self) -> list[Manifest]:
        """Return the manifest of every variant in the store."""
        return self.store.list()

    def online(self, variant_id: str) -> dict[str, Any] | None:
        """Return what live traffic says of a variant, None where it answered nothing."""
        return online_document(self.evidence.total(variant_id))

    def facts(self, variant_ids: Iterable[str]) -> Facts:
        """Return what plans rest on: the floor, what is loaded, and what live answers of these variants took."""
        seen = {variant_id: p99_s(self.evidence.total(variant_id)) for variant_id in variant_ids}
        return Facts(
            accuracy_floor=self.desk.policy.accuracy_floor,
            resident=self.fleet.in_use(self.rollout.state),
            live_p99_ms={name: 1e3 * seconds for name, seconds in seen.items() if seconds not in (None, math.inf)},
        )

    def targets(self) -> list[dict[str, Any]]:
        """Return every metrics page of the service, in the shape of Prometheus HTTP service discovery."""
        return targets_document(self.fleet.peers())

    def inflight(self) -> int:
        """Return the requests accepted and not yet answered, over all live replicas, as they last said."""
        return self.fleet.inflight()
