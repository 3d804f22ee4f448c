"""A comparison of scorers as Markdown, to be pasted into a document: a row a scorer, a column a cut."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pruning.spec import Recover
from service.comparison_tables import circumstances, overlap_words

Report = Mapping[str, Any]
"""As ``pruning.comparison.report.report_of`` gives it."""


def markdown_of(report: Report) -> str:
    """Return what was compared, what every cut is worth in percent, and how far the masks overlap, level by level.

    Scorers stand in the order of what their cuts are worth in the mean.
    """
    parts = [circumstances(report), _table(*_worth(report))]
    for overlap in report["overlap"]:
        parts += [overlap_words(overlap), _table(*_overlap(report["scorers"], overlap))]
    return "\n\n".join(parts)


def _worth(report: Report) -> tuple[list[str], Iterator[list[str]]]:
    """Return headings and rows; a spread over the seeds follows each mean."""
    rows: dict[str, dict[tuple[float, str], Mapping[str, Any]]] = {scorer: {} for scorer in report["scorers"]}
    for row in report["rows"]:
        rows[row["scorer"]][row["sparsity"], row["recover"]] = row
    recovers = [recover for recover in Recover if any(row["recover"] == recover for row in report["rows"])]
    cuts = [(level, recover.value) for level in report["levels"] for recover in recovers]
    ranked = sorted(rows.items(), key=lambda item: -statistics.fmean(row["value"] for row in item[1].values()))
    headings = ["scorer", *(f"{level:.0%}" if len(recovers) == 1 else f"{level:.0%} {way}" for level, way in cuts)]
    return headings, ([scorer, *(_mean(cells[cut]) for cut in cuts)] for scorer, cells in ranked)


def _mean(row: Mapping[str, Any]) -> str:
    spread = "" if row["spread"] is None else f" ± {100 * row['spread']:.1f}"
    return f"{100 * row['value']:.1f}{spread}"


def _overlap(scorers: Sequence[str], overlap: Mapping[str, Any]) -> tuple[list[str], Iterator[list[str]]]:
    """Return headings and rows; the last column is what the masks of one scorer's seeds share."""
    shares = zip(scorers, overlap["overall"], overlap["between_seeds"], strict=True)
    return ["", *scorers, "own seeds"], (
        [scorer, *(f"{value:.2f}" for value in shared), "" if alone is None else f"{alone:.2f}"]
        for scorer, shared, alone in shares
    )


def _table(headings: Sequence[str], rows: Iterator[list[str]]) -> str:
    lines = [list(headings), ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
