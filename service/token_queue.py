"""Requests in order of arrival, bounded and taken out by their tokens."""

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A request in a queue."""

    @property
    def tokens(self) -> int:
        """Tokens of all its sequences."""

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""


W = TypeVar("W", bound=Waiting)


class TokenQueue(Generic[W]):
    """The requests that wait, oldest first; each is there once."""

    def __init__(self) -> None:
        """None waits."""
        self._items: OrderedDict[W, None] = OrderedDict()
        self._tokens = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._items)

    @property
    def tokens(self) -> int:
        """Tokens that wait."""
        return self._tokens

    def add(self, item: W) -> None:
        """Let ``item`` wait behind all others."""
        self._items[item] = None
        self._tokens += item.tokens

    def remove(self, item: W) -> None:
        """Take ``item`` out, if it is still there."""
        if item in self._items:
            del self._items[item]
            self._tokens -= item.tokens

    def take(self, budget: int) -> list[W]:
        """Take the oldest requests that fit ``budget`` tokens together, or the oldest alone if it does not fit.

        Those that nobody waits for are dropped on the way.
        """
        taken: list[W] = []
        tokens = 0
        while self._items:
            item = next(iter(self._items))
            if not item.given_up:
                if taken and tokens + item.tokens > budget:
                    break
                taken.append(item)
                tokens += item.tokens
            self.remove(item)
        return taken
