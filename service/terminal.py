"""What commands show: tables and progress on stderr, results on stdout."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

stderr = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr; the block gets ``update(done, total)``."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


@contextmanager
def spinner(what: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done now; the block gets ``tell(text)``."""
    with stderr.status(what) as status:
        yield lambda text: status.update(f"{what}: {text}")


def frontier_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the frontier as a table: what each level costs and buys."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("sparsity", "achieved", "accuracy", "95 % interval", "agreement", "MACs", "p50 of one", "texts/s"):
        table.add_column(heading, justify="right")
    table.add_column("speed-up (ideal)", justify="right")
    table.add_column("how")
    for row in rows:
        low, high = row["accuracy_interval"]
        speedup = "" if row["speedup"] is None else f"{row['speedup']:.2f} ({row['ideal_speedup']:.2f})"
        table.add_row(
            f"{row['requested_sparsity']:g}",
            f"{row['achieved_sparsity']:.3f}",
            f"{row['accuracy']:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{row['agreement']:.1%}",
            f"{row['macs'] / 1e6:.0f} M",
            f"{row['latency_p50_ms']:.1f} ms",
            f"{row['items_per_s']:.0f}",
            speedup,
            "dense" if row["requested_sparsity"] == 0 else f"{row['scorer']}, {row['pattern']}, {row['recover']}",
        )
    return table
