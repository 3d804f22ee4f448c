"""What of a frontier is worth having: the Pareto front of the task's metric and speed, and what dominates the rest."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def dominators(rows: Sequence[Row]) -> dict[str, str | None]:
    """Return, by variant, the one that is at least as good by its metric and as fast; None for those worth having.

    Only rows that one run timed side by side (``speeds_run``) and that were judged on the same rows (``rows_digest``)
    are compared; one that no run timed is in nobody's way. Of equals in both the first is kept. Where several dominate
    a row, the fastest of those worth having is named.
    """
    found: dict[str, str | None] = {}
    for index, row in enumerate(rows):
        better = [other for place, other in enumerate(rows) if _dominates(other, row, comes_first=place < index)]
        best = max(better, key=lambda other: (other["items_per_s"], other["metric_value"]), default=None)
        found[row["variant"]] = None if best is None else best["variant"]
    return found


def left_out(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Return (row, the row that dominates it) of every row that ``dominated_by`` says is not worth having."""
    by_variant = {row["variant"]: row for row in rows}
    return [(row, by_variant[row["dominated_by"]]) for row in rows if row["dominated_by"] is not None]


def _dominates(other: Row, row: Row, *, comes_first: bool) -> bool:
    if other["speeds_run"] is None or any(other[key] != row[key] for key in ("speeds_run", "rows_digest")):
        return False
    mine, others = (row["metric_value"], row["items_per_s"]), (other["metric_value"], other["items_per_s"])
    at_least = others[0] >= mine[0] and others[1] >= mine[1]
    return at_least and (others != mine or comes_first)
