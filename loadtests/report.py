"""Results as Markdown and pictures for people, JSON for programs, JSON Lines for whoever wants to look again."""

import json
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.histogram import RELATIVE_ERROR
from loadtests.machine import certificate
from loadtests.phases import QUANTILES, Phase
from loadtests.records import write_replies
from loadtests.result import Result

LEGEND = (
    "Latency in ms from the intended send time, good answers only; quantiles within "
    f"{RELATIVE_ERROR:.1%} of the exact ones. Rates in requests per second. *Send lag*: how late the generator sent."
)


def milliseconds(seconds: float | None) -> str:
    """Return a duration for a table; a dash where there is none."""
    return "-" if seconds is None or math.isnan(seconds) else f"{seconds * 1000:.2f}"


def markdown(result: Result, *, taken_at: datetime) -> str:
    """Return the report of one run: circumstances, laws, goals, figures by phase, own tables."""
    parts = [
        f"# {result.scenario}: {taken_at:%Y-%m-%d %H:%M:%S} UTC",
        _table(("what", "value"), [*certificate().items(), *result.facts.items()]),
        "## Laws",
        _table(
            ("law", "held", "broken", "detail"),
            [(law.name, "yes" if law.held else "**no**", str(law.broken), law.detail) for law in result.laws],
        ),
    ]
    if result.goals:
        rows = [
            (goal.name, f"{goal.value:.2f}", f"{goal.limit:g}", "yes" if goal.met else "no") for goal in result.goals
        ]
        parts += ["## Goals", _table(("goal", "value", "limit", "met"), rows)]
    if result.phases:
        parts += ["## Phases", LEGEND, _phase_table(result.phases)]
    for table in result.tables:
        parts += [f"## {table.title}", *([table.legend] if table.legend else []), _table(table.header, table.rows)]
    return "\n\n".join(parts) + "\n"


def as_json(result: Result, *, taken_at: datetime) -> dict[str, Any]:
    """Return everything but the single replies."""
    return {
        "scenario": result.scenario,
        "taken_at": taken_at.isoformat(timespec="seconds"),
        "held": result.held,
        "circumstances": {**certificate(), **result.facts},
        "laws": [
            {"name": law.name, "held": law.held, "broken": law.broken, "detail": law.detail} for law in result.laws
        ],
        "goals": [
            {"name": goal.name, "value": _finite(goal.value), "limit": goal.limit, "met": goal.met}
            for goal in result.goals
        ],
        "phases": [phase.as_dict() for phase in result.phases],
        **result.details,
    }


def write(result: Result, folder: Path, *, taken_at: datetime | None = None) -> Path:
    """Write report, figures and replies under ``folder`` and return the report's path.

    Raises:
        FileExistsError: a result of that second is there; results are added, never edited.
    """
    taken_at = taken_at or datetime.now(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{taken_at:%Y-%m-%d_%H%M%S}_{result.scenario}"
    for name, replies in result.replies.items():
        write_replies(folder / f"{stem}_{name}.jsonl", replies)
    with (folder / f"{stem}.json").open("x", encoding="utf-8") as figures:
        json.dump(as_json(result, taken_at=taken_at), figures, indent=2)
        figures.write("\n")
    if result.draw is not None:
        result.draw(folder / f"{stem}.png")
    report = folder / f"{stem}.md"
    with report.open("x", encoding="utf-8") as page:
        page.write(markdown(result, taken_at=taken_at))
    return report


def _phase_table(phases: Iterable[Phase]) -> str:
    header = ("phase", "s", "offered", "achieved", "requests", "failed", *(f"p{q * 100:g}" for q in QUANTILES), "max")
    rows = [
        (
            phase.name,
            f"{phase.seconds:.1f}",
            "-" if phase.offered_rate is None else f"{phase.offered_rate:.1f}",
            "-" if math.isnan(phase.achieved_rate) else f"{phase.achieved_rate:.1f}",
            str(phase.requests),
            str(phase.failed),
            *(milliseconds(phase.latency.quantile(q)) for q in QUANTILES),
            milliseconds(phase.latency.max_s),
            milliseconds(phase.lag.quantile(0.99)),
        )
        for phase in phases
    ]
    return _table((*header, "send lag p99"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
