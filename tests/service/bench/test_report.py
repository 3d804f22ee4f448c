import json
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from pruning.encoder import BaseModel
from pruning.spec import Precision
from service.bench.plot import plot_report
from service.bench.report import ENGINE, Report, document_of
from service.bench.tables import circumstances, stage_table, throughput_table, verdicts
from tests.service.bench.bench_parts import engine_reading, level_of, loop_reading, report_of, subject_of


@pytest.fixture
def report(base: BaseModel) -> Report:
    """Dense and 50 % in float32, dense in bfloat16."""
    return report_of(
        [
            level_of(subject_of(base, 0.0), engine_reading(2.0, macs=1000), rate=100.0),
            level_of(subject_of(base, 0.5), engine_reading(1.0, macs=400), rate=120.0),
            level_of(subject_of(base, 0.0, Precision.BFLOAT16), engine_reading(0.9, macs=1000), rate=150.0),
        ]
    )


def test_a_speed_up_is_over_dense_of_the_same_precision_measured_the_same_way(report: Report) -> None:
    dense, sparse, other = report.levels
    assert report.speedup(sparse, ENGINE) == pytest.approx(2.1 / 1.1)
    assert report.speedup(sparse, "batched") == pytest.approx(1.2)
    assert report.speedup(other, "batched") == report.speedup(dense, ENGINE) == 1.0
    assert report.speedup_over_float32(other, "batched") == pytest.approx(1.5)
    assert report.ideal(sparse) == 2.5


def test_what_inference_itself_gained_leaves_the_other_stages_out(base: BaseModel) -> None:
    dense = replace(level_of(subject_of(base, 0.0), engine_reading(2.0)), http={"single_1": loop_reading(100.0, 0.8)})
    sparse = replace(level_of(subject_of(base, 0.5), engine_reading(1.0)), http={"single_1": loop_reading(160.0, 0.4)})
    report = report_of([dense, sparse])
    assert report.inference_speedup(sparse, "single_1") == pytest.approx(0.8 / 100 / (0.4 / 160))
    assert report.inference_speedup(sparse, ENGINE) == pytest.approx(2.0)
    assert report.inference_speedup(dense, "single_1") == report.inference_speedup(dense, ENGINE) == 1.0


def test_without_a_dense_level_in_float32_there_is_no_speed_up_over_it(base: BaseModel) -> None:
    report = report_of([level_of(subject_of(base, 0.0, Precision.BFLOAT16), engine_reading(1.0))])
    assert report.speedup_over_float32(report.levels[0], ENGINE) is None


def test_the_share_of_the_ceiling_is_of_the_forward_pass_alone(report: Report) -> None:
    assert report.of_ceiling(report.levels[0]) == pytest.approx(1000 / 2.0 / 4000)


def test_the_document_is_json_with_a_verdict_for_every_way(report: Report) -> None:
    document = json.loads(json.dumps(document_of(report), allow_nan=False))
    assert document["at"] and document["machine"] and document["versions"]
    assert document["ceilings"]["float32"]["gflops"] == pytest.approx(8e-6)
    for level in document["levels"]:
        assert level["engine"]["verdict"].startswith("inference limits")
        assert level["http"].keys() == document["loops"].keys()
        assert all("at most 1.7 times" in way["verdict"] for way in level["http"].values())


def shown(table: object) -> str:
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_tables_have_a_row_for_every_level_and_a_share_for_every_stage(report: Report) -> None:
    lines = shown(throughput_table(report)).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["0", "0.5", "0"]
    assert "120 (1.20)" in lines[2] and "0 bfloat16" in lines[3]
    stages = shown(stage_table(report))
    assert stages.count("engine alone") == 3 and "50%" in stages
    assert "bfloat16" in circumstances(report)


def test_a_sparse_level_is_told_with_what_it_bought_of_its_ideal(report: Report) -> None:
    lines = [line for line in verdicts(report) if line.startswith("0.5, HTTP")]
    assert len(lines) == 3
    assert all("1.20 times dense, of an ideal 2.50 (inference itself 1.20); " in line for line in lines)
    assert "times dense" not in verdicts(report)[0]


@pytest.mark.parametrize("rate", [None, 100.0], ids=["engine alone", "with HTTP"])
def test_the_picture_has_two_panels_of_lines_and_one_of_shares_for_every_way(
    base: BaseModel, rate: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    saved = Figure.savefig

    def save(figure: Figure, path: Path) -> None:
        figures.append(figure)
        saved(figure, path)

    monkeypatch.setattr(Figure, "savefig", save)
    levels = [level_of(subject_of(base, sparsity), engine_reading(1.0 - sparsity), rate) for sparsity in (0.0, 0.5)]
    plot_report(report_of(levels), tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    ways = 1 if rate is None else 4
    assert len(figures[0].axes) == 2 + ways
    assert len(figures[0].axes[0].lines) == ways
    assert len(figures[0].axes[1].lines) == ways + 1  # and the ideal
