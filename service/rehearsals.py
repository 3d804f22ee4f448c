"""The kinds of batches that ran lately, and which engine has met which: what one should run before it answers.

A matrix library makes a kernel for every shape that it meets, for each engine anew: the first batch of a kind takes
twice as long as the next. An engine that traffic meets cold is slow for its first second.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from pruning.slim.linear import rounded_rows
from service.engine import Engine
from service.schedule import Lane

KINDS = 64
"""Kinds that are remembered: more than half an hour of steady traffic shows on one lane."""
MEMORY_S = 60.0
"""Seconds after which a kind that was not seen again is no longer recent."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Batches that need the same kernels: those of a lane with like numbers of tokens."""

    lane: Lane
    rows: int
    """Their tokens, rounded up."""


class Rehearsals:
    """Recent kinds with an example of each, and the kinds that each engine has met, for as long as its model lives."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing has run."""
        self._clock = clock
        self._recent: OrderedDict[Kind, tuple[float, tuple[int, ...]]] = OrderedDict()
        self._met: WeakKeyDictionary[object, set[Kind]] = WeakKeyDictionary()

    def ran(self, engine: Engine, lane: Lane, lengths: Sequence[int]) -> None:
        """Note a batch of sequences of these lengths, in tokens."""
        kind = Kind(lane, rounded_rows(sum(lengths)))
        self._recent[kind] = (self._clock(), tuple(lengths))
        self._recent.move_to_end(kind)
        if len(self._recent) > KINDS:
            self._recent.popitem(last=False)
        self.met(engine, kind)

    def met(self, engine: Engine, kind: Kind) -> None:
        """Note that ``engine`` has run a batch of this kind."""
        self._met.setdefault(engine.model, set()).add(kind)

    def missing(self, engine: Engine) -> list[tuple[Kind, tuple[int, ...]]]:
        """Return the recent kinds that ``engine`` has not met, each with lengths of an example, the newest first."""
        met = self._met.get(engine.model, set())
        oldest_s = self._clock() - MEMORY_S
        return [
            (kind, lengths)
            for kind, (seen_s, lengths) in reversed(self._recent.items())
            if seen_s >= oldest_s and kind not in met
        ]
