"""A comparison of scorers in tables: what each is worth at each level, and how far they agree."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from pruning.memory import MIB
from pruning.spec import Structures

Report = Mapping[str, Any]
"""As ``pruning.comparison.report.report_of`` gives it."""


def circumstances(report: Report) -> str:
    """Return what was compared with what, in a sentence."""
    dense = report["dense"]
    low, high = dense["interval"]
    seeds = f"{report['seeds']} seed" + ("" if report["seeds"] == 1 else "s")
    pattern = pattern_words(report) if report["scope"] is None else f"{pattern_words(report)}, {report['scope']}"
    training = report["training"]
    trained = "" if training is None else f" distill: {training['steps']} steps of {training['batch_rows']} rows;"
    return (
        f"{pattern};{trained} dense {report['metric']} {dense['value']:.1%} ({100 * low:.1f}-{100 * high:.1f}); "
        f"{seeds} of {report['calibration_rows']} training rows each; mean ± standard deviation over the seeds, "
        f"95 % interval of the {report['evaluation_rows']} evaluation rows"
    )


def pattern_words(report: Report) -> str:
    """Return the pattern, with what goes where that is not the usual."""
    usual = report["structures"] == Structures.HEADS
    return str(report["pattern"]) if usual else f"{report['pattern']} ({report['structures']})"


def worth_table(report: Report) -> Table:
    """Return a row for each level and scorer, at each level the best first."""
    several = len({row["recover"] for row in report["rows"]}) > 1
    table = _table()
    table.add_column("sparsity", justify="right")
    table.add_column("scorer")
    if several:
        table.add_column("recover")
    for heading in (report["metric"], "(95 %)", "points lost", "agree", "achieved", "scored in", "memory"):
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
            f"{100 * row['lost']:z.1f}",
            f"{row['agreement']:.1%}",
            f"{row['achieved_sparsity']:.3f}",
            "cached" if seconds is None else f"{seconds:.1f} s",
            "" if row["score_bytes"] is None else f"{row['score_bytes'] / MIB:.0f} MiB",
        )
        above = row["sparsity"]
    return table


def overlap_tables(report: Report) -> Iterator[tuple[str, Table]]:
    """Yield (what it is, overlaps of the scorers' masks) level by level; columns are numbered as the rows are."""
    for overlap in report["overlap"]:
        table = _table()
        table.add_column("")
        for number in range(1, len(report["scorers"]) + 1):
            table.add_column(str(number), justify="right")
        table.add_column("own seeds", justify="right")
        shares = zip(report["scorers"], overlap["overall"], overlap["between_seeds"], strict=True)
        for number, (scorer, shared, alone) in enumerate(shares, start=1):
            own = "" if alone is None else f"{alone:.2f}"
            table.add_row(f"{number} {scorer}", *(f"{value:.2f}" for value in shared), own)
        yield overlap_words(overlap), table


def overlap_words(overlap: Mapping[str, Any]) -> str:
    """Return what the overlaps of a level are."""
    return (
        f"sparsity {overlap['sparsity']:g}: weights that two scorers both keep, of those that either keeps; "
        f"{overlap['by_chance']:.2f} by chance; last, those of one scorer with different seeds"
    )


def _table() -> Table:
    return Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
