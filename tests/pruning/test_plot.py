from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from pruning.frontier import frontier_rows, measure_side_by_side
from pruning.pipeline import build_variant
from pruning.plot import CASCADE_COLOR, lines_of, plot_frontier
from pruning.spec import PruneSpec
from pruning.workbench import Workbench

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("sparsities", [[0.0], [0.0, 0.3, 0.5], [0.3, 0.5]], ids=["dense", "ladder", "no dense"])
def test_the_frontier_becomes_a_png(bench: Workbench, tmp_path: Path, sparsities: list[float]) -> None:
    for sparsity in sparsities:
        build_variant(bench, PruneSpec(sparsity=sparsity))
    path = tmp_path / "frontier.png"
    plot_frontier(frontier_rows(bench.store), path, "tiny")
    content = path.read_bytes()
    assert content.startswith(PNG)
    assert len(content) > 5_000


def test_plotting_leaves_the_rows_as_they_were(bench: Workbench, tmp_path: Path) -> None:
    for sparsity in (0.5, 0.0):
        build_variant(bench, PruneSpec(sparsity=sparsity))
    rows = list(reversed(frontier_rows(bench.store)))
    before = [dict(row) for row in rows]
    plot_frontier(rows, tmp_path / "frontier.png", "tiny")
    assert rows == before


WAYS = [("fisher", "structured", "reconstruct"), ("fisher", "structured", "none"), ("taylor", "structured", "none")]


def row(
    sparsity: float, way: tuple[str, str, str] = WAYS[0], speedup: float | None = 2.0, precision: str = "float32"
) -> dict[str, Any]:
    return {
        "requested_sparsity": sparsity,
        "achieved_sparsity": sparsity,
        **dict(zip(("scorer", "pattern", "recover"), way, strict=True)),
        "precision": precision,
        "metric": "accuracy",
        "metric_value": 0.9 - sparsity / 10,
        "metric_interval": [0.8, 0.95],
        "agreement": 1.0,
        "speedup": speedup,
        "ideal_speedup": 3.0,
        "dominated_by": None,
    }


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Axes, Axes]]:
    """The two panels of every figure that is saved."""
    panels: list[tuple[Axes, Axes]] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: panels.append(tuple(figure.axes)))
    return panels


def words_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_every_way_of_cutting_is_a_line_of_its_own_from_the_dense_model_on(
    drawn: list[tuple[Axes, Axes]], tmp_path: Path
) -> None:
    rows = [row(0.0), *(row(sparsity, way) for sparsity in (0.5, 0.3) for way in WAYS)]
    lines = lines_of(rows)
    assert list(lines) == sorted(", ".join(way) for way in WAYS)
    assert all([r["achieved_sparsity"] for r in line] == [0.0, 0.3, 0.5] for line in lines.values())
    plot_frontier(rows, tmp_path / "frontier.png", "tiny")
    [(cost, gain)] = drawn
    assert len(cost.containers) == 3
    assert words_of(cost) == ["agreement with dense", *lines]
    solid = [line for line in gain.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in solid] == [[0.0, 0.3, 0.5]] * 3
    assert len({line.get_color() for line in solid}) == 3


def test_a_line_begins_at_the_dense_model_of_its_own_precision() -> None:
    rows = [row(sparsity, precision=precision) for sparsity in (0.0, 0.5) for precision in ("float32", "bfloat16")]
    lines = lines_of(rows)
    assert list(lines) == [", ".join(WAYS[0]), ", ".join((*WAYS[0], "bfloat16"))]
    assert [[one["precision"] for one in line] for line in lines.values()] == [["float32"] * 2, ["bfloat16"] * 2]


def test_a_single_way_needs_no_name_in_the_legend(drawn: list[tuple[Axes, Axes]], tmp_path: Path) -> None:
    plot_frontier([row(0.0), row(0.3), row(0.5)], tmp_path / "frontier.png", "tiny")
    [(cost, gain)] = drawn
    assert words_of(cost) == ["agreement with dense"]
    assert words_of(gain) == ["ideal (MACs)", "measured"]


def test_levels_without_a_measured_speed_have_no_point_of_it(drawn: list[tuple[Axes, Axes]], tmp_path: Path) -> None:
    plot_frontier([row(0.0), row(0.3), row(0.5, speedup=None)], tmp_path / "frontier.png", "tiny")
    plot_frontier([row(0.0, speedup=None), row(0.3, speedup=None)], tmp_path / "frontier.png", "tiny")
    (_, some), (_, none) = drawn
    assert [0.0, 0.3] in [list(line.get_xdata()) for line in some.lines if line.get_marker() == "o"]
    assert words_of(none) == ["ideal (MACs)"]


def test_points_of_what_is_not_worth_having_are_hollow(drawn: list[tuple[Axes, Axes]], tmp_path: Path) -> None:
    plot_frontier([row(0.0), row(0.3) | {"dominated_by": "other"}, row(0.5)], tmp_path / "frontier.png", "tiny")
    [panels] = drawn
    for axes in panels:
        drawn_points = [points for points in axes.collections if isinstance(points, PathCollection)]
        hollow = [points for points in drawn_points if to_hex(points.get_facecolor()[0]) == "#ffffff"]
        assert [place for points in hollow for place, _ in points.get_offsets()] == [0.3]
    assert "left out: not worth having" in words_of(panels[1])


def test_cascades_stand_over_their_levels_with_a_speed_where_there_is_one(
    drawn: list[tuple[Axes, Axes]], tmp_path: Path
) -> None:
    cascades = [row(0.5), row(0.3, speedup=None)]
    plot_frontier([row(0.0), row(0.3), row(0.5)], tmp_path / "frontier.png", "tiny", cascades)
    [(cost, gain)] = drawn
    assert "cascades with dense" in words_of(cost)
    for axes, places in ((cost, [0.5, 0.3]), (gain, [0.5])):
        points = [one for one in axes.collections if isinstance(one, PathCollection)]
        diamonds = [one for one in points if to_hex(one.get_edgecolor()[0]) == CASCADE_COLOR]
        assert [place for one in diamonds for place, _ in one.get_offsets()] == places


@pytest.mark.parametrize(
    ("over_float32", "against", "drawn_at"), [(3.0, "dense in float32", 3.0), (None, "dense", 2.0)]
)
def test_several_precisions_of_one_run_are_drawn_against_dense_in_float32(
    drawn: list[tuple[Axes, Axes]], tmp_path: Path, over_float32: float | None, against: str, drawn_at: float
) -> None:
    rows = [row(sparsity, precision=precision) for sparsity in (0.0, 0.5) for precision in ("float32", "bfloat16")]
    several = [one | {"speedup_over_float32": over_float32} for one in rows]
    plot_frontier(several, tmp_path / "frontier.png", "tiny")
    [(_, gain)] = drawn
    assert gain.get_ylabel() == f"texts per second, against {against}"
    solid = [line for line in gain.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [list(line.get_ydata()) for line in solid] == [[drawn_at] * 2] * 2


def test_measured_levels_are_drawn_into_the_picture(bench: Workbench, tmp_path: Path) -> None:
    specs = [PruneSpec(sparsity=0.0), PruneSpec(sparsity=0.5), PruneSpec(sparsity=0.5, scorer="taylor")]
    measure_side_by_side(bench, [build_variant(bench, spec) for spec in specs])
    plot_frontier(frontier_rows(bench.store), tmp_path / "frontier.png", "tiny")
    assert (tmp_path / "frontier.png").read_bytes().startswith(PNG)
