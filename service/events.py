"""What can happen to a rollout, and what is then to be done: the vocabulary of ``service.rollout``."""

from collections.abc import Mapping
from dataclasses import dataclass

from pruning.spec import PruneSpec
from service.operations import Asker, Canary, Cause, Choice, Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRequested:
    """Someone wants ``spec`` served. ``deadline`` is for its build."""

    operation_id: str
    spec: PruneSpec
    committed_stands: bool
    """Whether the committed variant is what a build of its own spec would give now, and is not below the floor."""
    now: float
    deadline: float
    expected_generation: int | None = None
    """The generation that whoever asks has seen; ``None`` takes any."""
    canary: Canary | None = None
    untried: bool = False
    """Whether whoever asks says that there shall be no trial; it ends one that runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRequested:
    """Someone wants the last change undone: the one that runs, else the one committed last.

    ``deadline`` is for the preparation of the previous variant.
    """

    operation_id: str
    accuracy_floor: float
    now: float
    deadline: float
    expected_generation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelChosen:
    """The service itself wants a level served that every replica holds loaded. ``deadline`` is for its preparation."""

    operation_id: str
    choice: Choice
    asked_by: Asker
    reason: str
    accuracy_floor: float
    now: float
    deadline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The variant is stored and evaluated. ``deadline`` is for its preparation."""

    operation_id: str
    variant_id: str
    achieved_sparsity: float
    accuracy: float
    accuracy_floor: float
    now: float
    deadline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """The operation cannot go on: its build failed, or its next state could not be written."""

    operation_id: str
    error: str
    cause: Cause
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicasReported:
    """What the live replicas say of ``operation_id``; true of this moment, sent as often as one likes."""

    operation_id: str
    live: frozenset[str]
    prepared: frozenset[str]
    failed: Mapping[str, str]
    """Replica id -> why it could not prepare."""
    accuracy_floor: float
    """As it is now: it may have been raised since the variant was built or chosen."""
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialJudged:
    """The trial of the running operation is over."""

    operation_id: str
    cause: Cause | None
    """Why the variant is turned back; ``None`` if it is not."""
    words: str
    """What was seen."""
    now: float
    deadline: float
    """For the commit, if it passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardTripped:
    """The committed variant does not hold its agreement with the dense model."""

    operation_id: str
    variant_id: str
    """The variant that it was seen of: another one may be committed meanwhile."""
    reason: str
    fallback: Choice
    """Where to go if there is no previous variant that may be gone back to."""
    accuracy_floor: float
    now: float
    deadline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed. ``waiting`` names the live replicas that have not prepared, for the words of the error."""

    now: float
    waiting: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted:
    """The controller begins, knowing no replica yet. ``deadline`` is for the phase it finds running."""

    accuracy_floor: float
    now: float
    hold_until: float
    deadline: float


Event = (
    ChangeRequested
    | RollbackRequested
    | LevelChosen
    | Built
    | Broken
    | ReplicasReported
    | TrialJudged
    | GuardTripped
    | Tick
    | Restarted
)


@dataclass(frozen=True, slots=True)
class StartBuild:
    """Build the variant of ``spec`` in the background."""

    operation_id: str
    spec: PruneSpec


@dataclass(frozen=True, slots=True)
class Announce:
    """An operation entered a phase, or was taken up again: log it, count it."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class Reply:
    """The operation that answers a request: a new one, the running one, or the one that had done it already."""

    operation: Operation


Action = StartBuild | Announce | Reply
