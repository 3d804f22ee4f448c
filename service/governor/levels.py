"""The levels that may answer: those of the ladder that an operator's bounds admit, each faster than all denser ones."""

from dataclasses import dataclass

WORTH = 1.02
"""A sparser level that is not this much faster than a denser one gives accuracy away for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A variant that every replica holds loaded."""

    variant_id: str
    name: str
    """For people and for metrics: the sparsity as asked for, and the precision where the ladder has several."""
    sparsity: float
    """As asked for, in [0, 1)."""
    accuracy: float
    """On the evaluation rows."""
    items_per_s: float
    """Texts a second when it was timed. Only ratios of it are used: what a level holds in service is measured there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Where the governor may go, and what it is to hold."""

    levels: tuple[Level, ...]
    """What is loaded everywhere."""
    slo_p99_s: float
    """99th percentile of the answer time that is wanted, in seconds."""
    accuracy_floor: float
    """No level below it answers."""
    min_sparsity: float = 0.0
    max_sparsity: float = 1.0
    barred: frozenset[str] = frozenset()
    """Variants that a guard turned back."""

    def rungs(self) -> tuple[Level, ...]:
        """Return the levels that may answer, densest and slowest first; there may be none."""
        admitted = [
            level
            for level in self.levels
            if level.accuracy >= self.accuracy_floor
            and self.min_sparsity <= level.sparsity <= self.max_sparsity
            and level.variant_id not in self.barred
        ]
        rungs: list[Level] = []
        for level in sorted(admitted, key=lambda level: (level.sparsity, level.items_per_s)):
            if not rungs or level.items_per_s >= WORTH * rungs[-1].items_per_s:
                rungs.append(level)
        return tuple(rungs)
