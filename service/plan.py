"""What a level would be worth and cost, read off the frontier: between neighbours of the same way. Arithmetic alone."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pruning.spec import KEYS, PruneSpec, way_of
from service.errors import Invalid

P99_FACTOR = 3.0
"""A 99th percentile over the median time of one text, where live traffic says nothing of any level: a service without
load. Load adds what waits in its queue."""
INTERPOLATED = ("latency_p50_ms", "macs", "parameters", "bytes", "agreement")

Row = Mapping[str, Any]
"""One of ``pruning.frontier.frontier_rows``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a plan rests on beside the frontier."""

    accuracy_floor: float
    resident: Collection[str]
    """Variants that replicas hold loaded."""
    live_p99_ms: Mapping[str, float]
    """99th percentile of the total time by variant, of those that answered enough."""


def plan_level(spec: PruneSpec, rows: Sequence[Row], facts: Facts) -> dict[str, Any]:
    """Return what a level would be worth and cost: as measured if it exists, else between its two neighbours.

    Neighbours are levels of the same way of cutting, in the same precision, and the dense one. Between them every
    number is a straight line over sparsity; the accuracy's interval reaches from the lower of both intervals' lower
    ends to the higher of both upper ends. Beyond the sparsest one nothing is told.

    Raises:
        Invalid: no neighbour on one side; names the levels that there are.
    """
    line = _line(spec, rows)
    exact = next((row for row in line if row["requested_sparsity"] == spec.sparsity), None)
    if exact is not None:
        return _document(spec, exact, exact, 0.0, rows, facts)
    below = [row for row in line if row["requested_sparsity"] < spec.sparsity]
    above = [row for row in line if row["requested_sparsity"] > spec.sparsity]
    if not below or not above:
        known = ", ".join(f"{row['requested_sparsity']:g}" for row in line) or "none"
        raise Invalid(
            f"sparsity {spec.sparsity:g} lies between no two levels cut by {way_of(spec.as_dict())}; stored: {known}. "
            "Build one beyond it with a change or 'sparsedial prune', then plan again."
        )
    low, high = below[-1], above[0]
    place = (spec.sparsity - low["requested_sparsity"]) / (high["requested_sparsity"] - low["requested_sparsity"])
    return _document(spec, low, high, place, rows, facts)


def best_level(p99_ms: float | None, accuracy: float | None, rows: Sequence[Row], facts: Facts) -> dict[str, Any]:
    """Return the stored level that keeps within bounds: the densest that holds the time, else the fastest.

    Args:
        p99_ms: milliseconds that 99 of 100 requests may take; None for any.
        accuracy: what it must have at least; None for the floor alone. One of both is given.
        rows: of the levels to choose from.
        facts: what else is known; no level below the floor is chosen.

    Raises:
        Invalid: no level keeps a bound; says which one, and what comes nearest.
    """
    if not rows:
        raise Invalid("No level is loaded yet.")
    least = max(facts.accuracy_floor, accuracy or 0.0)
    accurate = [row for row in rows if row["accuracy"] >= least]
    if not accurate:
        best = max(rows, key=lambda row: float(row["accuracy"]))
        raise Invalid(f"No level has an accuracy of {least:.4f}: the best, {_name(best)}, has {best['accuracy']:.4f}.")
    times = {row["variant"]: p99_of(row, rows, facts)[0] for row in rows}
    holding = [row for row in accurate if p99_ms is None or times[row["variant"]] <= p99_ms]
    if not holding:
        fastest = min(accurate, key=lambda row: times[row["variant"]])
        raise Invalid(
            f"No level of accuracy {least:.4f} answers within {p99_ms:g} ms: the fastest, {_name(fastest)}, takes "
            f"{times[fastest['variant']]:.1f}."
        )
    if p99_ms is None:
        chosen = min(holding, key=lambda row: (times[row["variant"]], row["requested_sparsity"]))
        reason = f"the fastest of {len(holding)} levels with an accuracy of {least:.4f} or more"
    else:
        chosen = min(holding, key=lambda row: (row["requested_sparsity"], times[row["variant"]]))
        reason = f"the densest of {len(holding)} levels within {p99_ms:g} ms, with an accuracy of {least:.4f} or more"
    spec = PruneSpec.from_dict(
        {"sparsity": chosen["requested_sparsity"]} | {name: chosen[name] for name in KEYS if name != "sparsity"}
    )
    return _document(spec, chosen, chosen, 0.0, rows, facts) | {"reason": reason}


def p99_of(row: Row, rows: Sequence[Row], facts: Facts) -> tuple[float, str]:
    """Return (99th percentile of the total time in ms, what it comes from).

    Of a level that answered enough live requests it is what they took. Of others it is the median time of one text
    times a factor: the one seen at the level nearest in cost that did, else ``P99_FACTOR``.
    """
    own = facts.live_p99_ms.get(row["variant"])
    if own is not None:
        return own, "live traffic"
    seen = [one for one in rows if one["variant"] in facts.live_p99_ms]
    if not seen:
        return row["latency_p50_ms"] * P99_FACTOR, f"{P99_FACTOR:g} times the median of one text, without load"
    near = min(seen, key=lambda one: abs(one["macs"] - row["macs"]))
    factor = facts.live_p99_ms[near["variant"]] / near["latency_p50_ms"]
    words = f"{factor:.1f} times the median of one text, as in live traffic at {_name(near)}"
    return row["latency_p50_ms"] * factor, words


def _line(spec: PruneSpec, rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the spec's way of cutting, the dense one of its precision first, each sparsity once."""
    way = way_of(spec.as_dict())
    line: dict[float, Row] = {}
    for row in rows:
        dense = row["requested_sparsity"] == 0.0 and row["precision"] == spec.precision
        if dense or (row["requested_sparsity"] > 0.0 and way_of(row) == way):
            line[row["requested_sparsity"]] = row
    return [line[sparsity] for sparsity in sorted(line)]


def _document(spec: PruneSpec, low: Row, high: Row, place: float, rows: Sequence[Row], facts: Facts) -> dict[str, Any]:
    """Return the plan of a level at ``place`` in [0, 1] between two rows, which are the same one if it exists."""
    exact = low is high

    def between(first: float, second: float) -> float:
        return first + place * (second - first)

    accuracy = between(low["accuracy"], high["accuracy"])
    times = {row["variant"]: p99_of(row, rows, facts) for row in (low, high)}
    (low_ms, low_from), (high_ms, high_from) = times[low["variant"]], times[high["variant"]]
    built = [sum(row["build_seconds"].values()) for row in (low, high) if row["requested_sparsity"] > 0.0]
    return {
        **spec.as_dict(),
        "exact": exact,
        "variant": low["variant"] if exact else None,
        "neighbours": sorted({low["requested_sparsity"], high["requested_sparsity"]}),
        "achieved_sparsity": between(low["achieved_sparsity"], high["achieved_sparsity"]),
        "accuracy": accuracy,
        "accuracy_interval": [
            min(row["accuracy_interval"][0] for row in (low, high)),
            max(row["accuracy_interval"][1] for row in (low, high)),
        ],
        **{name: between(low[name], high[name]) for name in INTERPOLATED},
        "items_per_s": 1.0 / between(1.0 / low["items_per_s"], 1.0 / high["items_per_s"]),
        "p99_ms": between(low_ms, high_ms),
        "p99_from": low_from if low_from == high_from else f"{low_from}; {high_from}",
        "build_s": 0.0 if exact else sum(built) / len(built),
        "passes_floor": accuracy >= facts.accuracy_floor,
        "accuracy_floor": facts.accuracy_floor,
        "resident": exact and low["variant"] in facts.resident,
    }


def _name(row: Row) -> str:
    return f"{row['requested_sparsity']:g} ({way_of(row)})" if row["requested_sparsity"] else "0"
