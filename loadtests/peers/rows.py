"""What the runs of one contestant, at one level, add up to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from loadtests.peers.catalog import REFERENCE, Contestant
from loadtests.peers.cells import Reading


@dataclass(slots=True, kw_only=True)
class Row:
    """Readings of a contestant, filled as the run goes on: one for each start."""

    contestant: Contestant
    level: float | None = None
    readings: dict[str, list[Reading]] = field(default_factory=dict)
    """By the word for the load."""
    labels: list[list[str]] = field(default_factory=list)
    starts_s: list[float] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)
    versions: str = ""
    faults: list[str] = field(default_factory=list)
    """Why readings are missing."""

    @property
    def name(self) -> str:
        """The contestant's name, with the level where it has levels."""
        return self.contestant.name if self.level is None else f"{self.contestant.name} {self.level:g}"

    @property
    def is_reference(self) -> bool:
        """True for the row whose labels the others' are compared with."""
        return self.contestant.name == REFERENCE and self.level == 0.0

    @property
    def failed(self) -> int:
        """Requests of all readings that were not answered with 200."""
        return sum(reading.phase.failed for readings in self.readings.values() for reading in readings)

    def note(self, fault: str) -> None:
        """Write down a fault once."""
        if fault not in self.faults:
            self.faults.append(fault)

    def items_per_s(self, shape: str) -> float | None:
        """Return the median over the readings of a load; None without one."""
        readings = self.readings.get(shape)
        return median(reading.items_per_s for reading in readings) if readings else None

    def agreement(self, wanted: Sequence[str] | None) -> float | None:
        """Return the lowest share of ``wanted`` labels that a start gave; None where there is nothing to compare."""
        if wanted is None or not self.labels or self.contestant.speed_only:
            return None
        return min(share_equal(labels, wanted) for labels in self.labels)

    def as_dict(self, reference: Sequence[str] | None, gold: Sequence[str] | None) -> dict[str, Any]:
        """Return everything but the labels, for JSON."""
        return {
            "name": self.name,
            "about": self.contestant.about,
            "versions": self.versions,
            "faults": self.faults,
            "agreement": self.agreement(reference),
            "accuracy": self.agreement(gold),
            "starts_s": self.starts_s,
            "resident_bytes": self.resident_bytes,
            "readings": {shape: [reading.as_dict() for reading in each] for shape, each in self.readings.items()},
        }


def share_equal(labels: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the share of places at which both have the same label.

    Raises:
        ValueError: they are not of one length.
    """
    pairs = list(zip(labels, wanted, strict=True))
    return sum(label == other for label, other in pairs) / len(pairs)


def reference_labels(rows: Sequence[Row]) -> list[str] | None:
    """Return the labels of dense SparseDial in float32; None when it was not read."""
    return next((row.labels[0] for row in rows if row.is_reference and row.labels), None)
