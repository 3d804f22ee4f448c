"""The frontier as a picture: what the dial costs in the task's metric, and what it buys in speed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pruning.spec import way_of

Row = Mapping[str, Any]

POINT = 36
"""Area of a point, in square points."""
INK, SOFT = "#22313f", "#9fb8c3"
COLORS = ("#1f6f8b", "#c8553d", "#5b8c5a", "#8e6c8a", "#d9a441", "#4a4e69")
"""One per way of cutting, over again if there are more."""
CASCADE_COLOR = "#b5179e"


def plot_frontier(rows: Sequence[Row], path: Path, title: str, cascades: Sequence[Row] = ()) -> None:
    """Write a PNG: the metric with its 95 % interval, and speed-up beside its ideal, over achieved sparsity.

    Every way of cutting is a line of its own, which begins at the dense model. Levels that were never timed beside
    the dense model have no point of measured speed; points of what is not worth having are hollow. Where one run timed
    several precisions, speeds are against the dense model in float32. Cascades are diamonds over their levels.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(9, 3.8), dpi=130, layout="constrained")
    cost, gain = figure.subplots(1, 2)
    lines = lines_of(rows)
    gained, against = _gain_of(rows)
    for index, (way, line) in enumerate(lines.items()):
        color = COLORS[index % len(COLORS)]
        _draw_cost(cost, line, color, way if len(lines) > 1 else None)
        _draw_gain(gain, line, gained, color)
    cost.plot([], [], color=INK, ls=":", marker=".", label="agreement with dense")
    cost.set(title="what it costs", ylabel=f"{rows[0]['metric']} (95 % interval)")
    gain.plot([], [], color=SOFT, ls="--", label="ideal (MACs)")
    if any(row[gained] is not None for row in rows):
        gain.plot([], [], color=INK if len(lines) > 1 else COLORS[0], marker="o", lw=2, label="measured")
    if any(row["dominated_by"] is not None for row in rows):
        gain.scatter([], [], s=POINT, color="white", edgecolors=INK, label="left out: not worth having")
    if cascades:
        for axes, value in ((cost, "metric_value"), (gain, "speedup")):
            _draw_points(axes, cascades, value, CASCADE_COLOR, "D")
        cost.scatter([], [], s=POINT, color=CASCADE_COLOR, marker="D", label="cascades with dense")
    gain.set(title="what it buys", ylabel=f"texts per second, against {against}")
    if len(lines) > 1:  # room for the legend
        low, high = cost.get_ylim()
        cost.set_ylim(low - 0.09 * (len(lines) + 1) * (high - low), high)
    cost.legend(frameon=False, loc="lower left")
    gain.legend(frameon=False, loc="upper left")
    for axes in (cost, gain):
        axes.set_xlabel("share of encoder weights removed")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e8eef1")
    figure.suptitle(title, color=INK)
    figure.savefig(path)


def lines_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of every way of cutting by its name, least sparse first.

    Every line begins at the dense model, as it is in that line's precision.
    """
    dense = [row for row in rows if row["requested_sparsity"] == 0]
    lines: dict[str, list[Row]] = {}
    for row in rows:
        if row["requested_sparsity"] > 0:
            begin = [one for one in dense if one["precision"] == row["precision"]]
            lines.setdefault(way_of(row), begin).append(row)
    return {
        way: sorted(line, key=lambda row: float(row["achieved_sparsity"]))
        for way, line in sorted((lines or {"dense": dense}).items())
    }


def _gain_of(rows: Sequence[Row]) -> tuple[str, str]:
    """Return (what is drawn as the gain, what it is against): with several precisions all in one run, float32 dense."""
    precisions = {row["precision"] for row in rows}
    if len(precisions) > 1 and all(row["speedup_over_float32"] is not None for row in rows):
        return "speedup_over_float32", "dense in float32"
    return "speedup", "dense"


def _draw_cost(axes: Axes, line: Sequence[Row], color: str, label: str | None) -> None:
    sparsity = [row["achieved_sparsity"] for row in line]
    below = [row["metric_value"] - row["metric_interval"][0] for row in line]
    above = [row["metric_interval"][1] - row["metric_value"] for row in line]
    axes.errorbar(
        sparsity,
        [row["metric_value"] for row in line],
        yerr=[below, above],
        color=color,
        ecolor=SOFT,
        marker="o",
        capsize=3,
        lw=2,
        label=label,
    )
    _draw_points(axes, line, "metric_value", color)
    axes.plot(sparsity, [row["agreement"] for row in line], color=color if label else INK, ls=":", marker=".")


def _draw_gain(axes: Axes, line: Sequence[Row], gain: str, color: str) -> None:
    axes.plot(*_known(line, "ideal_speedup"), color=SOFT, ls="--", lw=1.5)
    axes.plot(*_known(line, gain), color=color, marker="o", lw=2)
    _draw_points(axes, line, gain, color)


def _draw_points(axes: Axes, line: Sequence[Row], value: str, color: str, marker: str = "o") -> None:
    """Draw the points of what is not worth having hollow, and over all others those of what is."""
    worthy = [row for row in line if row["dominated_by"] is None]
    apart = [row for row in line if row["dominated_by"] is not None]
    axes.scatter(*_known(apart, value), s=POINT, color="white", edgecolors=color, marker=marker, zorder=3)
    axes.scatter(*_known(worthy, value), s=POINT, color=color, edgecolors=color, marker=marker, zorder=4)


def _known(line: Sequence[Row], gain: str) -> tuple[list[float], list[float]]:
    """Return sparsities and gains of the rows that have that gain."""
    rows = [row for row in line if row[gain] is not None]
    return [row["achieved_sparsity"] for row in rows], [row[gain] for row in rows]
