"""The kinds of batches that run, and which engine has met which: what one should run before it answers.

A matrix library makes a kernel for every shape that it meets, for each engine anew: the first batch of a kind takes
twice as long as the next. An engine that traffic meets cold is slow for its first second.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from pruning.slim.linear import rounded_rows
from service.engine import Engine
from service.schedule import Lane

BATCHES = 1000
"""Batches that are remembered."""
MEMORY_S = 60.0
"""Seconds after which a batch is forgotten."""
USUAL = 0.9
"""Share of the batches whose kinds are worth a rehearsal; the rest are many kinds, each of them seldom."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Batches that need the same kernels: those of a lane with like numbers of tokens."""

    lane: Lane
    rows: int
    """Their tokens, rounded up."""


class Rehearsals:
    """The batches of late, and the kinds that each engine has met, for as long as its model lives."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing has run."""
        self._clock = clock
        self._batches: deque[tuple[float, Kind]] = deque(maxlen=BATCHES)
        self._examples: dict[Kind, tuple[int, ...]] = {}
        self._met: WeakKeyDictionary[object, set[Kind]] = WeakKeyDictionary()

    def ran(self, engine: Engine, lane: Lane, lengths: Sequence[int]) -> None:
        """Note a batch of sequences of these lengths, in tokens."""
        kind = Kind(lane, rounded_rows(sum(lengths)))
        self._batches.append((self._clock(), kind))
        self._examples[kind] = tuple(lengths)
        self.met(engine, kind)

    def met(self, engine: Engine, kind: Kind) -> None:
        """Note that ``engine`` has run a batch of this kind."""
        self._met.setdefault(engine.model, set()).add(kind)

    def missing(self, engine: Engine) -> list[tuple[Kind, tuple[int, ...]]]:
        """Return the usual kinds that ``engine`` has not met, each with lengths of an example, the commonest first."""
        met = self._met.get(engine.model, set())
        return [(kind, self._examples[kind]) for kind in self._usual() if kind not in met]

    def _usual(self) -> list[Kind]:
        """Return the kinds of most batches, the commonest first."""
        oldest_s = self._clock() - MEMORY_S
        while self._batches and self._batches[0][0] < oldest_s:
            self._batches.popleft()
        usual, covered = [], 0
        for kind, count in Counter(kind for _, kind in self._batches).most_common():
            if covered >= USUAL * len(self._batches):
                break
            usual.append(kind)
            covered += count
        return usual
