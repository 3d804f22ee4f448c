import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loadtests.laws import Goal, Law
from loadtests.phases import summarize
from loadtests.report import as_json, markdown, write
from loadtests.result import Result, Table
from tests.loadtests.replies import reply

TAKEN_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def result() -> Result:
    replies = [reply(done_s=0.01 * number) for number in range(1, 101)]
    return Result(
        scenario="swap_under_load",
        facts={"capacity": "300.0 requests/s", "target": "http://127.0.0.1:8000/predict"},
        phases=(summarize("steady", replies, seconds=10.0, offered_rate=12.5), summarize("windows", [], seconds=0.0)),
        laws=(Law(name="no failed request", broken=2, detail="2 x 500 | 503"),),
        goals=(Goal(name="p99 ratio", value=1.25, limit=1.5),),
        tables=(Table(title="Swaps (ms)", header=("kind", "median"), rows=(("ladder", "12.00"),)),),
        details={"p99_ratio": 1.25},
        replies={"requests": replies},
    )


def test_a_report_says_where_and_how_its_numbers_were_taken(result: Result) -> None:
    page = markdown(result, taken_at=TAKEN_AT)
    for fact in ("2026-01-02 03:04:05", "machine", "cores", "Python", "aiohttp", "commit", "capacity", "intended send"):
        assert fact in page


def test_a_report_gives_rates_percentiles_laws_goals_and_tables(result: Result) -> None:
    page = markdown(result, taken_at=TAKEN_AT)
    assert "| steady | 10.0 | 12.5 | 10.0 | 100 | 0 | " in page
    assert "| 1000.00 |" in page
    assert "p50 | p90 | p99 | p99.9 | max | send lag p99" in page
    assert r"| no failed request | **no** | 2 | 2 x 500 \| 503 |" in page
    assert "| p99 ratio | 1.25 | 1.5 | yes |" in page
    assert "## Swaps (ms)" in page and "| ladder | 12.00 |" in page


def test_the_figures_are_plain_json(result: Result) -> None:
    figures = json.loads(json.dumps(as_json(result, taken_at=TAKEN_AT), allow_nan=False))
    assert figures["held"] is False
    assert figures["p99_ratio"] == 1.25
    assert figures["phases"][0]["offered_rate"] == 12.5
    assert figures["circumstances"]["target"].startswith("http://127.0.0.1")


def test_a_result_is_written_once(result: Result, tmp_path: Path) -> None:
    report = write(result, tmp_path / "new", taken_at=TAKEN_AT)
    assert report.name == "2026-01-02_030405_swap_under_load.md"
    names = {path.name for path in report.parent.iterdir()}
    assert names == {report.name, f"{report.stem}.json", f"{report.stem}_requests.jsonl"}
    with pytest.raises(FileExistsError):
        write(result, tmp_path / "new", taken_at=TAKEN_AT)
