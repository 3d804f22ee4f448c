"""The live replicas together: what they say, and what they are told."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from service.events import ReplicasReported, Tick
from service.leases import LeaseTable
from service.operations import Phase, RolloutState
from service.policy import Policy
from service.protocol import Desired, Peer, ReplicaReport, Staged, Trial

CONTROL_ID = "control"
"""The controller's own id among the peers."""

_VERSION_SPAN = 1 << 20
"""Versions of ``Desired`` per version of the state: those of a restarted controller are above all it gave before."""


class Fleet:
    """Reports in, orders out. Knows nothing of how a rollout goes on."""

    def __init__(
        self,
        *,
        lease_s: float,
        ladder: tuple[str, ...],
        metrics_address: str,
        policy: Callable[[], Policy],
        cascade_off: Callable[[], bool] = lambda: False,
    ) -> None:
        """Begin with no replica; see ``VariantController`` for the arguments.

        ``cascade_off`` tells whether the policy's cascade is switched off.
        """
        self._leases = LeaseTable(lease_s)
        self._ladder = ladder
        self._metrics_address = metrics_address
        self._policy = policy
        self._cascade_off = cascade_off
        self._draining = False
        self._orders: Desired | None = None

    def __iter__(self) -> Iterator[ReplicaReport]:
        """Go through the live replicas' last reports, by replica id."""
        return iter(self._leases)

    def __len__(self) -> int:
        """Count the live replicas."""
        return len(self._leases)

    @property
    def draining(self) -> bool:
        """Tell whether the replicas were asked to take nothing new."""
        return self._draining

    def hear(self, report: ReplicaReport, now: float) -> bool:
        """Take a report; tell whether it says anything new, what it counts apart."""
        return self._leases.renew(report, now)

    def sweep(self, now: float) -> None:
        """Drop the replicas that have been silent for longer than their lease."""
        self._leases.sweep(now)

    def drain(self) -> None:
        """From the next orders on, ask every replica to take nothing new."""
        self._draining = True

    def inflight(self) -> int:
        """Return the requests accepted and not yet answered, as last reported."""
        return sum(report.inflight for report in self)

    def reached(self, committed: int) -> int:
        """Return the generation that every live replica answers under or is past; ``committed`` where none lags."""
        return min((report.generation for report in self if report.generation < committed), default=committed)

    def in_use(self, state: RolloutState) -> frozenset[str]:
        """Return every variant that a replica has loaded or may be told to load, the one that is built apart."""
        orders = self.orders(state)
        told = {orders.variant_id, orders.previous_variant_id, *orders.resident}
        return frozenset(one for one in told | {report.variant_id for report in self} if one)

    def peers(self) -> tuple[Peer, ...]:
        """Return every process of the service that has a metrics page."""
        own = (Peer(replica_id=CONTROL_ID, metrics_address=self._metrics_address),) if self._metrics_address else ()
        return own + tuple(Peer(replica_id=one.replica_id, metrics_address=one.metrics_address) for one in self)

    def orders(self, state: RolloutState) -> Desired:
        """Return what every replica shall do; the same value for as long as nothing in it changes."""
        running = state.operation
        staged = None
        trial = None
        if running is not None and running.phase is not Phase.BUILDING and running.variant_id is not None:
            staged = Staged(operation_id=running.id, variant_id=running.variant_id)
            if running.phase is Phase.TRYING and not running.passed and running.canary is not None:
                trial = Trial(variant_id=running.variant_id, fraction=running.canary.fraction)
        known = self._orders
        orders = Desired(
            version=known.version if known else 0,
            generation=state.generation,
            variant_id=state.committed.variant_id,
            previous_variant_id=state.previous.variant_id if state.previous else None,
            staged=staged,
            resident=self._ladder,
            draining=self._draining,
            peers=self.peers(),
            policy=self._policy(),
            cascade_off=self._cascade_off(),
            distrusted=frozenset(state.distrusted),
            trial=trial,
        )
        if known is None or orders != known:
            known = replace(orders, version=max(orders.version + 1, state.version * _VERSION_SPAN))
        self._orders = known
        return known

    def reported(self, state: RolloutState, now: float) -> ReplicasReported | None:
        """Return what the live replicas say of the running operation, None if none runs."""
        if state.operation is None:
            return None
        running = state.operation.id
        return ReplicasReported(
            operation_id=running,
            live=frozenset(one.replica_id for one in self),
            prepared=frozenset(one.replica_id for one in self if one.prepared_operation == running),
            failed={
                one.replica_id: one.failure or "it gave no reason" for one in self if one.failed_operation == running
            },
            accuracy_floor=self._policy().accuracy_floor,
            now=now,
        )

    def time_passed(self, state: RolloutState, now: float) -> Tick | None:
        """Return that it is now, and which replicas the running operation waits for; None if none runs."""
        if state.operation is None:
            return None
        running = state.operation.id
        return Tick(now=now, waiting=frozenset(one.replica_id for one in self if one.prepared_operation != running))
