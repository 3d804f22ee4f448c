"""Rows of a comparison as a result: laws, and the tables of the report."""

from collections.abc import Callable, Sequence

from loadtests.laws import Law
from loadtests.peers.cells import BUSY_CORES, Reading
from loadtests.peers.rows import Row, reference_labels
from loadtests.report import milliseconds
from loadtests.result import Result, Table

CELLS = (
    "One reading per start, separated by `/`. cN: closed loop, N connections, one text per request; bNxM: N "
    f"connections, M texts per request. *: others on the machine took more than {BUSY_CORES:g} cores meanwhile."
)
CONTESTANTS = (
    "Agreement: share of the texts with the label of dense SparseDial in float32. Accuracy: with the file's label. "
    "Both are the lowest of the starts. Memory: proportional resident memory of all processes, the largest reading. "
    "Start: from the command to the first answer, everything prepared."
)


def result_of(rows: Sequence[Row], shapes: Sequence[str], facts: dict[str, str], gold: Sequence[str] | None) -> Result:
    """Return the result of a run: what was read, what was not and why."""
    wanted = reference_labels(rows)
    return Result(
        scenario="peers",
        facts=facts,
        phases=(),
        laws=(_everyone_is_measured(rows), _sparsedial_fails_no_request(rows)),
        tables=(
            _contestants(rows, wanted, gold),
            _cells("Texts per second", rows, shapes, CELLS, lambda reading: f"{reading.items_per_s:.0f}"),
            _ratios(rows, shapes),
            _cells("Latency, p50 (ms)", rows, shapes, "", lambda reading: _ms(reading, 0.5)),
            _cells("Latency, p99 (ms)", rows, shapes, "", lambda reading: _ms(reading, 0.99)),
            _versions(rows),
        ),
        details={"rows": [row.as_dict(wanted, gold) for row in rows]},
    )


def _everyone_is_measured(rows: Sequence[Row]) -> Law:
    """Every contestant of the run has all its readings."""
    cases = [f"{row.name}: {fault}" for row in rows for fault in row.faults]
    told = "; ".join(cases[:3]) or f"{len(rows)} rows, each with every reading"
    return Law(name="every contestant is measured", broken=len(cases), detail=told)


def _sparsedial_fails_no_request(rows: Sequence[Row]) -> Law:
    """SparseDial answers every request with 200; what others fail stands in their rows."""
    ours = [row for row in rows if row.contestant.dialled]
    failed = {row.name: row.failed for row in ours if row.failed}
    told = ", ".join(f"{name}: {count}" for name, count in failed.items()) or f"{len(ours)} rows without a failure"
    return Law(name="SparseDial fails no request", broken=sum(failed.values()), detail=told)


def _contestants(rows: Sequence[Row], wanted: Sequence[str] | None, gold: Sequence[str] | None) -> Table:
    header = ("contestant", "what", "agreement", "accuracy", "failed", "memory MB", "start s", "note")
    lines = tuple(
        (
            row.name,
            row.contestant.about,
            _percent(row.agreement(wanted)),
            _percent(row.agreement(gold)),
            str(row.failed) if row.readings else "-",
            f"{max(row.resident_bytes) / 1e6:.0f}" if row.resident_bytes else "-",
            "/".join(f"{seconds:.1f}" for seconds in row.starts_s) or "-",
            "; ".join(row.faults),
        )
        for row in rows
    )
    return Table(title="Contestants", header=header, rows=lines, legend=CONTESTANTS)


def _cells(
    title: str, rows: Sequence[Row], shapes: Sequence[str], legend: str, tell: Callable[[Reading], str]
) -> Table:
    """Return one row per contestant, one column per load, and in each cell every reading."""
    lines = tuple(
        (
            row.name,
            *(
                "/".join(tell(reading) + "*" * reading.disturbed for reading in row.readings.get(shape, [])) or "-"
                for shape in shapes
            ),
        )
        for row in rows
    )
    return Table(title=title, header=("contestant", *shapes), rows=lines, legend=legend)


def _ratios(rows: Sequence[Row], shapes: Sequence[str]) -> Table:
    reference = next((row for row in rows if row.is_reference), None)
    bases = {shape: reference.items_per_s(shape) if reference else None for shape in shapes}
    legend = "Median texts per second over that of dense SparseDial in float32: the figure to read, as machines differ."
    lines = tuple((row.name, *(_ratio(row.items_per_s(shape), bases[shape]) for shape in shapes)) for row in rows)
    return Table(title="Throughput against dense SparseDial", header=("contestant", *shapes), rows=lines, legend=legend)


def _versions(rows: Sequence[Row]) -> Table:
    lines = tuple((row.name, row.versions) for row in rows if row.versions)
    return Table(title="Versions", header=("contestant", "versions"), rows=lines)


def _ms(reading: Reading, quantile: float) -> str:
    return milliseconds(reading.phase.latency.quantile(quantile))


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.2f}" if value is not None and base else "-"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
