"""What the live replicas and those before them counted, together, by variant."""

from collections.abc import Collection
from dataclasses import dataclass

from service.protocol import ReplicaReport
from service.tally import Tally

KEPT = 256
"""Variants whose counts are remembered; of more, the one that was heard of least recently is forgotten."""
MAY_RETURN = 64
"""Replicas that are silent and may be heard again; of more, the first that was ever heard counts as gone for good."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment: what had been counted by then."""

    totals: dict[str, Tally]


class Evidence:
    """Sums of cumulative counts. A report may come twice, a replica may go, return or begin anew: nothing counts twice.

    Reports of one replica must come in the order in which they were made, as ``LeaseTable`` gives them.
    """

    def __init__(self) -> None:
        """Nothing was heard."""
        self._latest: dict[tuple[str, str], Tally] = {}
        """By replica and variant, of the live replicas and of those that may be heard again."""
        self._ended: dict[str, Tally] = {}
        """By variant: what replicas that are gone counted, and what others forgot."""

    def hear(self, report: ReplicaReport) -> None:
        """Take the counts of a replica in place of those that it gave before."""
        for tally in report.tallies:
            name = (report.replica_id, tally.variant_id)
            before = self._latest.get(name)
            if before is not None and _fell(before, tally):
                self._end(before)
            self._latest[name] = tally
            if tally.variant_id in self._ended:
                self._ended[tally.variant_id] = self._ended.pop(tally.variant_id)

    def keep(self, live: Collection[str]) -> None:
        """Let go of the replicas that are not ``live``, but for ``MAY_RETURN``; what they counted stays counted.

        One whose reports were late for longer than its lease goes on counting from where it was.
        """
        silent = [one for one in dict.fromkeys(replica_id for replica_id, _ in self._latest) if one not in live]
        gone = set(silent[:-MAY_RETURN])
        for name in [name for name in self._latest if name[0] in gone]:
            self._end(self._latest.pop(name))

    def total(self, variant_id: str) -> Tally:
        """Return all that was counted of a variant."""
        total = self._ended.get(variant_id) or Tally(variant_id=variant_id)
        for (_, name), tally in self._latest.items():
            if name == variant_id:
                total = total + tally
        return total

    def mark(self) -> Mark:
        """Return this moment, to be handed to ``since``."""
        known = {*self._ended, *(variant_id for _, variant_id in self._latest)}
        return Mark({variant_id: self.total(variant_id) for variant_id in known})

    def since(self, mark: Mark, variant_id: str) -> Tally:
        """Return what was counted of a variant after ``mark``."""
        total = self.total(variant_id)
        before = mark.totals.get(variant_id)
        return total if before is None or _fell(before, total) else total - before

    def _end(self, tally: Tally) -> None:
        before = self._ended.pop(tally.variant_id, None)
        self._ended[tally.variant_id] = tally if before is None else before + tally
        while len(self._ended) > KEPT:
            del self._ended[next(iter(self._ended))]


def _fell(before: Tally, after: Tally) -> bool:
    """Tell whether counts that only grow are less than they were: whoever counts has begun anew."""
    names = ("begun", "answered", "failed", "timed_out", "texts")
    return any(getattr(after, name) < getattr(before, name) for name in names)
