"""A comparison of scorers in tables: what each is worth at each level, and how far they agree."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

Report = Mapping[str, Any]
"""As ``pruning.comparison.report.report_of`` gives it."""


def worth_table(report: Report) -> Table:
    """Return a row for each level and scorer, at each level the best first."""
    dense = report["dense"]
    low, high = dense["interval"]
    several = len({row["recover"] for row in report["rows"]}) > 1
    table = _table(
        f"dense: {dense['value']:.1%} ({100 * low:.1f}-{100 * high:.1f}); {report['pattern']}; mean of "
        f"{_counted(report['seeds'], 'seed')}, each with {report['calibration_rows']} training rows, ± their standard "
        f"deviation; judged on {report['evaluation_rows']} rows (95 %)"
    )
    table.add_column("sparsity", justify="right")
    table.add_column("scorer")
    if several:
        table.add_column("recover")
    for heading in (report["metric"], "(95 %)", "points lost", "agree", "achieved", "scored in"):
        table.add_column(heading, justify="right")
    above = None
    for row in report["rows"]:
        low, high = row["interval"]
        spread = "" if row["spread"] is None else f" ± {100 * row['spread']:.1f}"
        seconds = row["score_seconds"]
        table.add_row(
            "" if row["sparsity"] == above else f"{row['sparsity']:g}",
            row["scorer"],
            *([row["recover"]] if several else []),
            f"{row['value']:.1%}{spread}",
            f"{100 * low:.1f}-{100 * high:.1f}",
            f"{100 * row['lost']:.1f}",
            f"{row['agreement']:.1%}",
            f"{row['achieved_sparsity']:.3f}",
            "cached" if seconds is None else f"{seconds:.1f} s",
        )
        above = row["sparsity"]
    return table


def overlap_tables(report: Report) -> Iterator[Table]:
    """Yield the overlaps of the scorers' masks, level by level."""
    for overlap in report["overlap"]:
        table = _table(
            f"sparsity {overlap['sparsity']:g}: weights kept by both, of those kept by either "
            f"(by chance {overlap['by_chance']:.2f})"
        )
        table.add_column("")
        for scorer in report["scorers"]:
            table.add_column(scorer, justify="right")
        table.add_column("between seeds", justify="right")
        for scorer, shared, alone in zip(report["scorers"], overlap["overall"], overlap["between_seeds"], strict=True):
            table.add_row(scorer, *(f"{value:.2f}" for value in shared), "" if alone is None else f"{alone:.2f}")
        yield table


def _table(caption: str) -> Table:
    return Table(box=None, header_style="bold", pad_edge=False, caption=caption, caption_justify="left")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
