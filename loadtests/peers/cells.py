"""One reading: a closed loop of a given shape against a server that is up, and what others took meanwhile."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from loadtests.capacity import closed_loop
from loadtests.client import LanePool
from loadtests.machine import own_cpu_s
from loadtests.peers.proc import Tree, machine_cpu_s
from loadtests.phases import Phase, summarize
from loadtests.target import Target

BUSY_CORES = 0.2
"""Others' share of the machine above which a reading is marked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A closed loop: how many clients, and how many texts each sends at a time."""

    clients: int
    texts: int = 1

    @classmethod
    def parsed(cls, word: str) -> Self:
        """Return the shape of ``c8`` (clients with single texts) or ``b2x32`` (clients x texts).

        Raises:
            ValueError: it is neither.
        """
        found = re.fullmatch(r"c([1-9]\d*)|b([1-9]\d*)x([1-9]\d*)", word)
        if found is None:
            raise ValueError(f"a load is such as c8 or b2x32; got {word!r}")
        single, clients, texts = found.groups()
        return cls(clients=int(single)) if single else cls(clients=int(clients), texts=int(texts))

    def __str__(self) -> str:
        """Return the word for it."""
        return f"c{self.clients}" if self.texts == 1 else f"b{self.clients}x{self.texts}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one loop gave."""

    items_per_s: float
    """Texts answered with 200 per second."""
    phase: Phase
    others_cores: float
    """Cores that neither the server nor the generator used but somebody did."""

    @property
    def disturbed(self) -> bool:
        """True when others took enough to doubt it."""
        return self.others_cores > BUSY_CORES

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {**self.phase.as_dict(), "items_per_s": self.items_per_s, "others_cores": self.others_cores}


async def read(
    target: Target,
    shape: Shape,
    bodies: Sequence[bytes],
    *,
    seconds: float,
    warm_up_s: float,
    timeout_s: float,
    tree: Tree,
) -> Reading:
    """Send for ``warm_up_s`` without counting, then for ``seconds``; each body holds the shape's number of texts."""
    async with LanePool(target, size=shape.clients, timeout_s=timeout_s) as pool:
        await closed_loop(pool, bodies, clients=shape.clients, seconds=warm_up_s)
        start_s, all_s, ours_s = pool.clock.now(), machine_cpu_s(), tree.cpu_s() + own_cpu_s()
        replies = await closed_loop(pool, bodies, clients=shape.clients, seconds=seconds)
        took_s = pool.clock.now() - start_s
        others_s = machine_cpu_s() - all_s - (tree.cpu_s() + own_cpu_s() - ours_s)
    phase = summarize(str(shape), replies, seconds=took_s)
    good = phase.requests - phase.failed
    return Reading(items_per_s=good * shape.texts / took_s, phase=phase, others_cores=max(0.0, others_s / took_s))
