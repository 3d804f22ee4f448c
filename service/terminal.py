"""What commands show: results on stdout, words and progress on stderr.

On a terminal progress moves in place. Anywhere else (a log, a pipe, a container) it is a plain line now and then.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pruning.pareto import left_out
from pruning.spec import Precision, way_of

PLAIN_STEP = 10
"""Percent between two plain lines of progress."""
PLAIN_WIDTH = 160
"""Columns of a table where no terminal sets a width."""

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def print_table(table: Table, console: Console = stdout) -> None:
    """Write a table, as wide as it needs to be where there is no terminal."""
    if not console.is_terminal:
        console = Console(file=console.file, width=PLAIN_WIDTH, highlight=False)
    console.print(table)


def say(text: str, style: str | None = None) -> None:
    """Write one line to stderr, unbroken, so that paths and commands in it can be copied."""
    stderr.print(text, style=style, markup=False, soft_wrap=True)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far the work is, on stderr; the block gets ``update(done, total)``."""
    if not stderr.is_terminal:
        yield _plain_progress(what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def _plain_progress(what: str) -> Callable[[int, int], None]:
    """Return an ``update`` that writes a line at the first call and then at about every ``PLAIN_STEP`` percent."""
    shown = -1

    def update(done: int, total: int) -> None:
        nonlocal shown
        percent = 100 * done // max(total, 1)
        if shown < 0 or percent // PLAIN_STEP > shown // PLAIN_STEP:
            shown = percent
            say(f"{what}: {percent} % ({done} of {total})")

    return update


@contextmanager
def work_bar(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show what is being computed and the time left, on stderr; the block gets ``update(step, done, total)``.

    Steps may take very different times: ``done`` and ``total`` count work, not steps.
    """
    if not stderr.is_terminal:
        yield _plain_work(what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=stderr) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda step, done, total: bars.update(bar, description=step, completed=done, total=total)


def _plain_work(what: str) -> Callable[[str, int, int], None]:
    """Return an ``update`` that writes a line at about every ``PLAIN_STEP`` percent: the step, and the time left."""
    started, shown = time.monotonic(), -1

    def update(step: str, done: int, total: int) -> None:
        nonlocal shown
        percent = 100 * done // max(total, 1)
        if shown < 0 or percent // PLAIN_STEP > shown // PLAIN_STEP:
            shown = percent
            elapsed = time.monotonic() - started
            left = f", about {elapsed * (total - done) / done:.0f} s left" if 0 < done < total else ""
            say(f"{what}: {percent} %, {step}{left}")

    return update


@contextmanager
def spinner(what: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done now, on stderr; the block gets ``tell(text)``."""
    if not stderr.is_terminal:
        say(what)
        yield lambda text: say(f"{what}: {text}")
        return
    with stderr.status(what) as status:
        yield lambda text: status.update(f"{what}: {text}")


def print_frontier(rows: Sequence[Mapping[str, Any]], console: Console = stdout) -> None:
    """Write the frontier's table, and a line for each level that is not worth having: which one makes it so."""
    print_table(frontier_table(rows), console)
    for row, other in left_out(rows):
        mine, others = row["metric_value"], other["metric_value"]
        accurate = f"{'as' if others == mine else 'more'} accurate"
        console.print(
            f"left out: {_level(row, other)}; {_level(other, row)} is {accurate} "
            f"({others:.1%}, {mine:.1%}) and {_faster(row, other)}",
            markup=False,
            soft_wrap=True,
        )


def print_cascades(rows: Sequence[Mapping[str, Any]], console: Console = stdout) -> None:
    """Write the table of cascades, if there are any: what each is worth, and what a text costs on average."""
    if not rows:
        return
    table = Table(
        box=None, header_style="bold", pad_edge=False, collapse_padding=True,
        caption="cascades: the level answers what it is sure of, the dense model the rest; texts/s as expected",
    )  # fmt: skip
    metric = f"{rows[0]['metric']} (95 %)"
    for heading in ("cascade", "wanted", "handed on", metric, "agree", "mean MACs", "texts/s", "speed (ideal)", ""):
        table.add_column(heading, justify="right")
    for row in rows:
        low, high = row["metric_interval"]
        rate = row["items_per_s"]
        table.add_row(
            _rung(row),
            f"{row['agreement_target']:.1%}",
            f"{row['escalated']:.1%}",
            f"{row['metric_value']:.1%} ({100 * low:.1f}-{100 * high:.1f})",
            f"{row['agreement']:.1%}",
            f"{row['macs'] / 1e6:.0f} M",
            "" if rate is None else f"{rate:.0f}",
            f"({row['ideal_speedup']:.2f})" if rate is None else f"{row['speedup']:.2f} ({row['ideal_speedup']:.2f})",
            "" if row["dominated_by"] is None else "not worth having",
        )
    print_table(table, console)


def _level(row: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return a level's name: its sparsity, its precision if not float32, how it was cut if the other one was not so."""
    mine, others = ([one[part] for part in ("scorer", "pattern", "recover")] for one in (row, other))
    way = "" if mine == others or row["requested_sparsity"] == 0 else f" ({', '.join(mine)})"
    return f"{_rung(row)}{way}"


def _rung(row: Mapping[str, Any]) -> str:
    precision = "" if row["precision"] == Precision.FLOAT32 else f" {row['precision']}"
    return f"{row['requested_sparsity']:g}{precision}"


def _faster(row: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    mine, others = row["items_per_s"], other["items_per_s"]
    return "as fast" if others == mine else f"faster ({others:.0f}, {mine:.0f} texts/s)"


def frontier_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the frontier as a table, 80 columns wide if all levels were cut one way: what each costs and buys.

    Speed is throughput against the dense model's, beside what the MACs would promise. What is not worth having stands
    apart at the end.
    """
    ways = sorted({way_of(row) for row in rows if row["requested_sparsity"] > 0})
    several = len(ways) > 1
    devices = " and ".join(sorted({row["speed_device"] for row in rows}))
    caption = f"latency: median of one text, on {devices.upper()}"
    if len(ways) == 1:
        caption = f"cut by {ways[0]}; {caption}"
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True, caption=caption)
    metric = f"{' and '.join(sorted({row['metric'] for row in rows}))} (95 %)"
    for heading in ("sparsity", "achieved", metric, "agree", "MACs", "latency", "texts/s", "speed (ideal)"):
        table.add_column(heading, justify="right")
    if several:
        table.add_column("cut by")
    worthy = [row for row in rows if row["dominated_by"] is None]
    apart = [row for row in rows if row["dominated_by"] is not None]
    for row in [*worthy, *apart]:
        if apart and row is apart[0]:
            table.add_row("left out:")
        low, high = row["metric_interval"]
        cells = [
            f"{row['requested_sparsity']:g}",
            f"{row['achieved_sparsity']:.3f}",
            f"{row['metric_value']:.1%} ({100 * low:.1f}-{100 * high:.1f})",
            f"{row['agreement']:.1%}",
            f"{row['macs'] / 1e6:.0f} M",
            f"{row['latency_p50_ms']:.1f} ms",
            f"{row['items_per_s']:.0f}",
            "" if row["speedup"] is None else f"{row['speedup']:.2f} ({row['ideal_speedup']:.2f})",
        ]
        if several:
            dense = "" if row["precision"] == Precision.FLOAT32 else row["precision"]
            cells.append(way_of(row) if row["requested_sparsity"] > 0 else dense)
        table.add_row(*cells)
    return table
