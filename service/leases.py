"""Which replicas are alive: those that have reported within their lease."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from service.protocol import ReplicaReport


@dataclass(slots=True)
class _Lease:
    report: ReplicaReport
    renewed_at: float


class LeaseTable:
    """The last report of every live replica. Times are seconds of any clock that never goes back.

    A replica leaves only by ``sweep``, so that reports heard after a pause of our own process do not make the
    replicas still waiting to be heard look dead.
    """

    def __init__(self, lease_s: float) -> None:
        """Keep a replica for ``lease_s`` after each of its reports."""
        self.lease_s = lease_s
        self._leases: dict[str, _Lease] = {}
        self._swept_at: float | None = None

    def __iter__(self) -> Iterator[ReplicaReport]:
        """Go through the live replicas' last reports, by replica id."""
        return iter([self._leases[replica_id].report for replica_id in sorted(self._leases)])

    def __len__(self) -> int:
        """Count the live replicas."""
        return len(self._leases)

    def renew(self, report: ReplicaReport, now: float) -> bool:
        """Take a report; tell whether it says anything new, what it counts apart.

        A replica that serves nothing yet only asks: it gets no lease. A report that was overtaken by a later one of
        the same replica shows that it lives, and says nothing.
        """
        if not report.variant_id:
            return False
        known = self._leases.get(report.replica_id)
        if known is not None and _is_older(report, known.report):
            known.renewed_at = now
            return False
        self._leases[report.replica_id] = _Lease(report, now)
        if known is None:
            return True
        counted = replace(known.report, inflight=report.inflight, load=report.load, tallies=report.tallies)
        return counted != report

    def sweep(self, now: float) -> None:
        """Drop the replicas whose lease has run out. Call several times per lease.

        After a pause of our own every lease begins anew: that silence was ours.
        """
        paused = self._swept_at is not None and now - self._swept_at > self.lease_s / 2
        self._swept_at = now
        if paused:
            for lease in self._leases.values():
                lease.renewed_at = now
        self._leases = {
            replica_id: lease for replica_id, lease in self._leases.items() if now - lease.renewed_at <= self.lease_s
        }


def _is_older(report: ReplicaReport, other: ReplicaReport) -> bool:
    """Tell whether a report was made before another one of the same replica, by the clock that it reads its load by."""
    return report.load is not None and other.load is not None and report.load.at_s < other.load.at_s
