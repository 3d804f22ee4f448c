"""The values of a rollout: what is committed, the operation that runs, and those that have ended."""

import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from pruning.spec import PruneSpec
from pruning.variants import Manifest

HISTORY_LIMIT = 100
"""Finished operations that are remembered."""


class Kind(StrEnum):
    """What an operation was asked to do."""

    SWAP = "swap"
    ROLLBACK = "rollback"


class Phase(StrEnum):
    """Where an operation stands; the last three are final."""

    BUILDING = "building"
    PREPARING = "preparing"
    TRYING = "trying"
    """A share of the requests is answered by it."""
    COMMITTED = "committed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


class Asker(StrEnum):
    """Who wanted an operation."""

    OPERATOR = "operator"
    GOVERNOR = "governor"
    """The service, to hold its latency."""
    GUARD = "guard"
    """The service, because the committed variant does not hold its agreement."""


class Cause(StrEnum):
    """Why an operation did not commit: its public ``error_type``."""

    ACCURACY_FLOOR = "accuracy_floor"
    AGREEMENT = "agreement"
    BUILD = "build"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    ERRORS = "errors"
    INTERNAL = "internal"
    LATENCY = "latency"
    REPLICA = "replica"
    STORAGE = "storage"


def new_operation_id() -> str:
    """Return an id that no other operation has."""
    return uuid.uuid4().hex[:16]


def same_cut(one: PruneSpec, other: PruneSpec) -> bool:
    """Tell whether two specs ask for the same weights: nothing is removed in one way only."""
    return one == other or (one.sparsity == other.sparsity == 0.0 and one.precision == other.precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A variant that was committed."""

    variant_id: str
    spec: PruneSpec
    achieved_sparsity: float
    accuracy: float
    operation_id: str | None
    """The last operation that asked for it; None for the variant of the first start."""

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Return the choice of a stored variant that no operation asked for."""
        return cls(
            variant_id=manifest.variant_id,
            spec=manifest.spec,
            achieved_sparsity=manifest.achieved_sparsity,
            accuracy=manifest.evaluation.accuracy,
            operation_id=None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """How a variant is tried before it is committed."""

    fraction: float
    """Share of the requests that it answers, above 0."""
    seconds: float
    """Longest trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One change, from its request to its end. Times are Unix seconds."""

    id: str
    kind: Kind
    spec: PruneSpec
    entered: tuple[tuple[Phase, float], ...]
    """Every phase it entered, and when."""
    deadline: float
    """When the running phase is given up."""
    variant_id: str | None = None
    achieved_sparsity: float | None = None
    accuracy: float | None = None
    generation: int | None = None
    """The generation under which it was committed."""
    error: str | None = None
    error_type: Cause | None = None
    canary: Canary | None = None
    """``None`` commits without a trial."""
    passed: bool = False
    """Whether its trial went well; it is then committed as soon as every live replica is prepared."""
    trial: str | None = None
    """What was seen of a trial that it passed, or that a request ended it, in words."""
    asked_by: Asker = Asker.OPERATOR
    reason: str | None = None
    """Why the service asked for it, in words; None where an operator did."""

    @property
    def phase(self) -> Phase:
        """Return the phase entered last."""
        return self.entered[-1][0]

    @property
    def finished(self) -> bool:
        """Tell whether nothing will change any more."""
        return self.phase not in (Phase.BUILDING, Phase.PREPARING, Phase.TRYING)

    @property
    def created_at(self) -> float:
        """Return when it was asked for."""
        return self.entered[0][1]

    @property
    def finished_at(self) -> float | None:
        """Return when it ended, if it has."""
        return self.entered[-1][1] if self.finished else None

    def durations_s(self) -> dict[str, float]:
        """Return the seconds spent in each phase that is over, and in ``total`` once all are."""
        names = {Phase.BUILDING: "build", Phase.PREPARING: "prepare", Phase.TRYING: "try"}
        steps = zip(self.entered, self.entered[1:], strict=False)
        durations = {names[phase]: end - start for (phase, start), (_, end) in steps}
        if self.finished_at is not None:
            durations["total"] = self.finished_at - self.created_at
        return durations


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutState:
    """All that outlives the controller. Live replicas are no part of it: they say so themselves."""

    version: int
    """Grows by one with every change of any field."""
    generation: int
    """Grows by one with every commit."""
    committed: Choice
    previous: Choice | None = None
    operation: Operation | None = None
    """The one that runs."""
    history: tuple[Operation, ...] = ()
    """Finished operations, oldest first, at most ``HISTORY_LIMIT``."""
    distrusted: tuple[str, ...] = ()
    """Variants that did not agree with the dense model on live traffic, committed or on trial: none is gone back to by
    a rollback, no request may choose one, and the governor leaves them out. One that is committed again, because an
    operator asked for it by name, is trusted again."""
    hold_until: float = 0.0
    """No commit before this moment, so that every live replica can be heard first."""

    @classmethod
    def first(cls, manifest: Manifest) -> Self:
        """Return the state of a service where nothing but ``manifest``'s variant was ever committed."""
        return cls(version=1, generation=1, committed=Choice.of(manifest))

    @property
    def phase(self) -> Phase | None:
        """Return the phase of the running operation, None when idle."""
        return self.operation.phase if self.operation else None

    def find(self, operation_id: str) -> Operation | None:
        """Return the running or remembered operation of this id."""
        known = (*self.history, self.operation) if self.operation else self.history
        return next((operation for operation in known if operation.id == operation_id), None)
