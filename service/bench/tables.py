"""The report at a terminal: a table of throughput, one of where the time goes, and a sentence for each level."""

from rich.table import Table

from pruning.spec import Precision
from service.bench.loops import LOOPS, Loop
from service.bench.report import ENGINE, Level, Report
from service.bench.verdict import NAMES, verdict

TITLES = {ENGINE: "engine alone"} | {
    loop.name: f"HTTP, {loop.clients} client{'s' * (loop.clients > 1)}, {loop.texts} text{'s' * (loop.texts > 1)} each"
    for loop in LOOPS
}
"""Way -> its name in words."""


def name_of(level: Level) -> str:
    """Return a level's name: its sparsity, and its precision where that is not float32."""
    spec = level.subject.spec
    return f"{spec.sparsity:g}" + ("" if spec.precision is Precision.FLOAT32 else f" {spec.precision}")


def circumstances(report: Report) -> str:
    """Return in a line what the throughput table speaks of."""
    ceilings = ", ".join(f"{precision} {2e-9 * rate:.0f} GFLOP/s" for precision, rate in report.ceilings.items())
    return (
        f"{report.model}: texts a second (speed-up over dense of the same precision); {report.mean_tokens:.0f} tokens "
        f"a text on average, {report.threads} threads; one matrix at best: {ceilings}"
    )


STAGES_LINE = f"where the time goes (answer: {NAMES['answer']}; rest: {NAMES['rest']})"


def throughput_table(report: Report) -> Table:
    """Return texts a second of every level and way, each with its speed-up over dense of the same precision."""
    table = _table()
    ways = list(report.levels[0].ways)
    for heading in ("sparsity", "ideal", "engine", "of matrix rate", *map(_short, ways[1:])):
        table.add_column(heading, justify="right")
    for level in report.levels:
        cells = [f"{level.ways[way][0]:.0f} ({report.speedup(level, way):.2f})" for way in ways]
        table.add_row(
            name_of(level), f"{report.ideal(level):.2f}", cells[0], f"{report.of_ceiling(level):.0%}", *cells[1:]
        )
    return table


def stage_table(report: Report) -> Table:
    """Return how the time is shared out between stages, level by level and way by way."""
    stages = ("tokenization", "packing", "inference", "answer", "rest")
    table = _table()
    for heading in ("sparsity", "way", *stages):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for level in report.levels:
        for index, (way, (_, shares)) in enumerate(level.ways.items()):
            cells = [f"{shares[stage]:.0%}" if stage in shares else "" for stage in stages]
            table.add_row(name_of(level) if index == 0 else "", TITLES[way], *cells)
    return table


def verdicts(report: Report) -> list[str]:
    """Return one line for each level and way: what limits there, and what sparsity can at most buy."""
    return [
        f"{name_of(level)}, {TITLES[way]}: {_bought(report, level, way)}{verdict(shares)}"
        for level in report.levels
        for way, (_, shares) in level.ways.items()
    ]


def _bought(report: Report, level: Level, way: str) -> str:
    if level.subject.spec.sparsity == 0.0:
        return ""
    return (
        f"{report.speedup(level, way):.2f} times dense, of an ideal {report.ideal(level):.2f} "
        f"(inference itself {report.inference_speedup(level, way):.2f}); "
    )


def _short(way: str) -> str:
    loop: Loop = next(loop for loop in LOOPS if loop.name == way)
    return f"HTTP {loop.clients} x {loop.texts}"


def _table() -> Table:
    return Table(box=None, header_style="bold", pad_edge=False)
