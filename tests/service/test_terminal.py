import io
from typing import Any

import pytest
from rich.console import Console

import service.terminal
from service.terminal import (
    frontier_table,
    print_cascades,
    print_frontier,
    print_json,
    print_table,
    progress_bar,
    say,
    spinner,
    work_bar,
)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is written to stderr where it is no terminal."""
    written = io.StringIO()
    monkeypatch.setattr(service.terminal, "stderr", Console(file=written, force_terminal=False, width=80))
    return written


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(service.terminal, "stderr", Console(file=written, force_terminal=True, width=80))
    return written


def row(sparsity: float = 0.5, **changes: Any) -> dict[str, Any]:
    return {
        "requested_sparsity": sparsity,
        "achieved_sparsity": sparsity,
        "metric": "accuracy",
        "metric_value": 0.901,
        "metric_interval": [0.881, 0.922],
        "agreement": 0.987,
        "macs": 11_000_000_000,
        "latency_p50_ms": 123.4,
        "speed_device": "cpu",
        "items_per_s": 12345.6,
        "speedup": 10.0,
        "ideal_speedup": 12.5,
        "scorer": "magnitude",
        "pattern": "structured",
        "recover": "reconstruct",
        "precision": "float32",
        "dominated_by": None,
    } | changes


def lines_of(rows: list[dict[str, Any]], width: int) -> list[str]:
    written = io.StringIO()
    Console(file=written, width=width).print(frontier_table(rows))
    return [line.rstrip() for line in written.getvalue().splitlines()]


def test_what_is_not_worth_having_stands_apart_with_the_reason() -> None:
    worse = row(0.4, variant="worse", dominated_by="better", metric_value=0.824, items_per_s=466.0)
    better = row(0.6, variant="better", metric_value=0.831, items_per_s=654.0)
    written = io.StringIO()
    print_frontier([worse, better, row(0.7, variant="fastest")], Console(file=written, width=100))
    lines = [line.strip() for line in written.getvalue().splitlines()]
    assert [line.split()[0] for line in lines[1:5]] == ["0.6", "0.7", "left", "0.4"]
    assert lines[-1] == "left out: 0.4; 0.6 is more accurate (83.1%, 82.4%) and faster (654, 466 texts/s)"


def test_a_cascade_says_what_it_hands_on_and_what_a_text_then_costs() -> None:
    cascade = row(0.7, agreement_target=0.995, escalated=0.171, macs=200e6, items_per_s=350.4, speedup=2.0)
    untimed = cascade | {"items_per_s": None, "speedup": None, "precision": "int8", "dominated_by": "better"}
    written = io.StringIO()
    print_cascades([cascade, untimed], Console(file=written, width=100))
    _, first, second, *_ = [line.split() for line in written.getvalue().splitlines()]
    assert first == ["0.7", "99.5%", "17.1%", "90.1%", "(88.1-92.2)", "98.7%", "200", "M", "350", "2.00", "(12.50)"]
    assert second[:2] == ["0.7", "int8"] and second[-4:] == ["(12.50)", "not", "worth", "having"]
    nothing = io.StringIO()
    print_cascades([], Console(file=nothing))
    assert nothing.getvalue() == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"items_per_s": 200.0}, "0.6 int8 is as accurate (90.1%, 90.1%) and faster (200, 100 texts/s)"),
        ({"scorer": "taylor", "items_per_s": 200.0}, "0.6 int8 (taylor, structured, reconstruct) is as accurate"),
        ({"metric_value": 0.95, "items_per_s": 100.0}, "0.6 int8 is more accurate (95.0%, 90.1%) and as fast"),
    ],
)
def test_the_reason_says_what_is_equal(changes: dict[str, Any], words: str) -> None:
    worse = row(0.4, variant="worse", dominated_by="better", items_per_s=100.0)
    written = io.StringIO()
    print_frontier([worse, row(0.6, variant="better", precision="int8", **changes)], Console(file=written, width=100))
    assert written.getvalue().splitlines()[-1].startswith("left out: 0.4") and words in written.getvalue()


def test_plain_progress_is_a_line_every_ten_percent(plain: io.StringIO) -> None:
    with progress_bar("scoring") as update:
        for done in range(1, 1001):
            update(done, 1000)
    lines = plain.getvalue().splitlines()
    assert lines[0] == "scoring: 0 % (1 of 1000)"
    assert lines[1:] == [f"scoring: {percent} % ({10 * percent} of 1000)" for percent in range(10, 101, 10)]


def test_plain_progress_of_few_steps_shows_each(plain: io.StringIO) -> None:
    with progress_bar("timing") as update:
        for done in range(1, 4):
            update(done, 3)
    assert plain.getvalue().splitlines() == ["timing: 33 % (1 of 3)", "timing: 66 % (2 of 3)", "timing: 100 % (3 of 3)"]


def test_progress_of_nothing_is_no_error(plain: io.StringIO) -> None:
    with progress_bar("scoring") as update:
        update(0, 0)


def test_a_plain_spinner_tells_what_and_every_step(plain: io.StringIO) -> None:
    with spinner("building") as tell:
        tell("cut")
    assert plain.getvalue().splitlines() == ["building", "building: cut"]


def test_plain_work_is_a_line_every_ten_percent_with_the_step_and_the_time_left(
    plain: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 5.0, 6.0, 10.0])
    monkeypatch.setattr("service.terminal.time.monotonic", lambda: next(seconds))
    with work_bar("comparing") as update:
        for step, done in (("calibration", 0), ("calibration", 5), ("calibration", 100), ("wanda", 200)):
            update(step, done, 200)
    assert plain.getvalue().splitlines() == [
        "comparing: 0 %, calibration",
        "comparing: 50 %, calibration, about 6 s left",
        "comparing: 100 %, wanda",
    ]


def test_work_on_a_terminal_moves_in_place_and_names_the_step(terminal: io.StringIO) -> None:
    with work_bar("comparing") as update:
        update("calibration", 1, 4)
    assert "\x1b[" in terminal.getvalue()
    assert "calibration" in terminal.getvalue() and "25%" in terminal.getvalue() and "left" in terminal.getvalue()


def test_on_a_terminal_progress_moves_in_place(terminal: io.StringIO) -> None:
    with progress_bar("scoring") as update:
        update(3, 3)
    with spinner("building") as tell:
        tell("cut")
    assert "\x1b[" in terminal.getvalue() and "3/3" in terminal.getvalue()


def test_a_line_is_never_broken_and_its_brackets_are_no_markup(plain: io.StringIO) -> None:
    path = "/a/[bold]/" + 200 * "x"
    say(f"sparsedial: {path}")
    assert plain.getvalue() == f"sparsedial: {path}\n"


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_of_one_ladder_fits_a_common_terminal(width: int) -> None:
    header, dense, level, caption = lines_of([row(0.0), row(0.5)], width)
    assert header.split()[0] == "sparsity" and header.endswith("speed (ideal)")
    assert dense.split()[0] == "0"
    assert level.split()[:2] == ["0.5", "0.500"] and level.endswith("10.00 (12.50)")
    assert "90.1% (88.1-92.2)" in level and "11000 M" in level and "123.4 ms" in level
    assert "cut by magnitude, structured, reconstruct" in caption
    assert "…" not in header + dense + level


def test_levels_cut_in_several_ways_say_which(plain: io.StringIO) -> None:
    rows = [row(0.0), row(0.5), row(0.5, scorer="fisher", recover="none", speedup=None)]
    header, dense, first, second, _ = lines_of(rows, 160)
    assert header.endswith("cut by") and "magnitude" not in dense
    assert first.endswith("magnitude, structured, reconstruct") and second.endswith("fisher, structured, none")


def test_a_piped_table_is_as_wide_as_it_needs(plain: io.StringIO) -> None:
    narrow = io.StringIO()
    print_table(frontier_table([row(0.5), row(0.5, scorer="fisher")]), Console(file=narrow, width=20))
    assert "magnitude, structured, reconstruct" in narrow.getvalue()


def test_json_is_one_document_and_never_has_a_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"ä": [1.5]})
    assert capsys.readouterr().out == '{\n  "\\u00e4": [\n    1.5\n  ]\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        print_json(float("nan"))
