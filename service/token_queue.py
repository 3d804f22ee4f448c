"""Requests in order of arrival, bounded and taken out by their tokens, those of one choice together."""

import itertools
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A request in a queue."""

    @property
    def tokens(self) -> int:
        """Tokens of all its sequences."""

    @property
    def choice(self) -> object:
        """What it is to run on, hashed: only requests of one choice run together."""

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""


W = TypeVar("W", bound=Waiting)


class TokenQueue(Generic[W]):
    """The requests that wait, oldest first; each is there once."""

    def __init__(self) -> None:
        """None waits."""
        self._lines: dict[object, OrderedDict[W, int]] = {}
        """By choice, with the number of each in the order of arrival; none is empty."""
        self._numbers = itertools.count()
        self._length = 0
        self._tokens = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return self._length

    @property
    def tokens(self) -> int:
        """Tokens that wait."""
        return self._tokens

    @property
    def next_choice(self) -> object:
        """The choice of the oldest request: what ``take`` takes next. Something waits."""
        return min(self._lines, key=lambda choice: next(iter(self._lines[choice].values())))

    def add(self, item: W) -> None:
        """Let ``item`` wait behind all others."""
        self._lines.setdefault(item.choice, OrderedDict())[item] = next(self._numbers)
        self._length += 1
        self._tokens += item.tokens

    def remove(self, item: W) -> None:
        """Take ``item`` out, if it is still there."""
        line = self._lines.get(item.choice)
        if line is not None and item in line:
            del line[item]
            self._length -= 1
            self._tokens -= item.tokens
            if not line:
                del self._lines[item.choice]

    def take(self, budget: int) -> list[W]:
        """Take the oldest request, and the next ones of its choice that fit ``budget`` tokens together with it.

        Since the oldest of all goes first, no choice waits for another longer than for requests that came before.
        Those that nobody waits for are dropped on the way.
        """
        while self._lines:
            if taken := self._take_of(self.next_choice, budget):
                return taken
        return []

    def _take_of(self, choice: object, budget: int) -> list[W]:
        taken: list[W] = []
        tokens = 0
        line = self._lines[choice]
        while line:
            item = next(iter(line))
            if not item.given_up:
                if taken and tokens + item.tokens > budget:
                    break
                taken.append(item)
                tokens += item.tokens
            self.remove(item)
        return taken
