"""A request in the batcher's queue, and what it gets back."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from service.deadlines import Deadline


class Tokens(Protocol):
    """What can be queued: anything with token ids."""

    @property
    def ids(self) -> Sequence[int]:
        """Token ids of one sequence."""


S = TypeVar("S")
T = TypeVar("T", bound=Tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Generic[S]):
    """What one request gets back."""

    rows: Any
    """The slice of the batch's result that belongs to this request, in the order of its sequences."""
    snapshot: S
    """What the whole batch ran on."""
    queue_s: float
    """Seconds from the request's arrival to the start of its batch."""
    inference_s: float
    """Seconds that its batch ran."""


@dataclass(slots=True, eq=False)
class Item(Generic[S, T]):
    """One waiting request."""

    sequences: Sequence[T]
    tokens: int
    choice: object
    deadline: Deadline | None
    future: asyncio.Future[Answered[S]]
    arrived: float = field(default_factory=time.perf_counter)

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.future.done() or (self.deadline is not None and self.deadline.passed)
