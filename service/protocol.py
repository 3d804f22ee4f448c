"""The words that the controller and its replicas exchange, and the seams between the parts.

Frozen values only: they travel between processes. Nothing here imports Ray, so both halves of the protocol are
tested without a cluster.
"""

from dataclasses import dataclass
from typing import Protocol

from pruning.spec import PruneSpec
from pruning.variants import Manifest
from service.load import Load
from service.operations import Cause
from service.policy import Policy
from service.tally import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """The variant that every live replica is asked to hold ready for one operation."""

    operation_id: str
    variant_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The staged variant answers a share of the requests that name no level."""

    variant_id: str
    fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A live process with a metrics page of its own."""

    replica_id: str
    metrics_address: str
    """``host:port`` of its Prometheus page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What the controller wants of every replica; ``version`` grows with each change of any field."""

    version: int
    generation: int
    """Grows by one with every committed swap."""
    variant_id: str
    """The committed variant: it answers by default."""
    previous_variant_id: str | None
    """The variant committed before it, kept loaded so that a rollback is immediate."""
    staged: Staged | None
    resident: tuple[str, ...]
    """The ladder: variants to keep loaded."""
    draining: bool
    """True once the service is stopping: finish what is in flight, take nothing new."""
    peers: tuple[Peer, ...]
    policy: Policy
    cascade_off: bool = False
    """Whether the guard has switched off the cascade that the policy names."""
    distrusted: frozenset[str] = frozenset()
    """Variants that the guard turned back, and that no operator has committed since: nobody may ask for them."""
    trial: Trial | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """What a replica says of itself with every long-poll; it doubles as its heartbeat."""

    replica_id: str
    generation: int
    variant_id: str
    prepared_operation: str | None
    """The operation whose staged variant this replica holds loaded and warm."""
    failed_operation: str | None
    """The operation that this replica could not prepare, with ``failure`` saying why."""
    failure: str | None
    metrics_address: str
    inflight: int
    """Requests accepted and not yet answered."""
    load: Load | None = None
    """What it gets and does, as of this report; None from one that does not answer yet."""
    tallies: tuple[Tally, ...] = ()
    """What it counted of each variant since it started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A build that came to nothing: a value, since an error does not cross processes as itself."""

    message: str
    """Words for the operator."""
    cause: Cause


class ControlLink(Protocol):
    """A replica's line to the controller."""

    async def sync(self, report: ReplicaReport, known_version: int) -> Desired:
        """Report, then return the desired state: at once if newer than ``known_version``, else within a second."""


class Builder(Protocol):
    """Whoever turns a spec into a stored, evaluated variant, away from the request path."""

    async def build(self, spec: PruneSpec, in_use: frozenset[str]) -> Manifest | Refusal:
        """Return the manifest of the variant of ``spec``, built now or found in the store, or why there is none.

        It makes room in the store too, and leaves what is ``in_use``. A build that is cancelled ends: the next one
        does not wait for it.
        """


class EngineHolder(Protocol):
    """A replica's engines, as its follower drives them."""

    async def stage(self, variant_id: str) -> None:
        """Load, warm and probe a variant beside the live one; raises on any failure, the live one untouched."""

    def commit(self, generation: int, variant_id: str) -> None:
        """Let a loaded variant answer from the next batch on, under ``generation``."""

    def drop_staged(self) -> None:
        """Forget the staged variant, unless it is live or resident."""

    async def keep_resident(self, variant_ids: tuple[str, ...]) -> None:
        """Load these variants where they are not yet, and let go of others that are neither live nor staged."""

    def heed(self, policy: Policy, *, cascade_off: bool = False, distrusted: frozenset[str] = frozenset()) -> None:
        """Choose levels and sample requests by this policy from now on.

        Its cascade is left out if that is off, and no request may choose what is distrusted.
        """

    def try_out(self, trial: Trial | None) -> None:
        """Let a loaded variant answer a share of the requests from now on; ``None`` ends that."""

    @property
    def generation(self) -> int:
        """The generation that answers now."""

    @property
    def variant_id(self) -> str:
        """The variant that answers now."""


class Door(Protocol):
    """A replica's requests, as its follower sees them."""

    def start_draining(self) -> None:
        """Refuse new requests; those in flight are answered."""

    @property
    def inflight(self) -> int:
        """Requests accepted and not yet answered."""

    def load(self) -> Load:
        """Return what this replica gets, does and has waiting, as of now."""

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """What was counted of each variant since the replica started."""
