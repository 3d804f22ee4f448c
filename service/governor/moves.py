"""What the governor decides, and the words for it."""

from dataclasses import dataclass
from enum import StrEnum

from service.governor.levels import Level


class Why(StrEnum):
    """The class of a reason: what metrics count by."""

    REFUSALS = "refusals"
    QUEUE = "queue"
    ARRIVALS = "arrivals"
    LATENCY = "latency"
    CALM = "calm"
    BOUNDS = "bounds"
    STEADY = "steady"
    """Nothing asks for another level."""
    WAITING = "waiting"
    """Something does, but not for long enough, or a change has yet to show what it is good for."""
    NOT_THE_MODEL = "not_the_model"
    """A sparser level would not help, for the model is not what keeps requests waiting."""
    LIMIT = "limit"
    """No level that may answer is sparser, or none may answer at all."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is done, or nothing."""

    why: Why
    words: str
    """For an operator, with the figures it rests on."""


@dataclass(frozen=True, slots=True)
class Move:
    """Let another level answer."""

    level: Level
    sparser: bool
    """Whether it is sparser than the one that answers."""
    reason: Reason
    further: bool = False
    """Whether it is sparser than what the load asks for, as far as is known what levels hold."""


@dataclass(frozen=True, slots=True)
class Stay:
    """Leave the level as it is."""

    reason: Reason


def milliseconds(seconds: float) -> str:
    """Return seconds as an operator reads them."""
    return f"{1e3 * seconds:.0f} ms"
