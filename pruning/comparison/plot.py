"""A comparison as a picture: accuracy over sparsity, what scorers agree on, and where they cut."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from PIL import Image

from pruning.comparison.kept import Sublayer
from pruning.plot import COLORS, INK, SOFT
from pruning.spec import Recover

STYLES = ("-", "--", "-.", ":")
MARKERS = "os^Dv"
"""Of lines: one for each time that the colours begin anew."""
COLUMNS = 3
"""Heat maps beside each other."""
DENSE_TICKS = 8
"""Columns from which on the numbers in a heat map are written small."""
WIDTH, LINES_HEIGHT, LEGEND_LINE, MARGIN, CELL = 13.0, 4.6, 0.24, 1.5, 0.3
"""Inches: of the picture, of its lines at least, of a name beside them, around the cells of a heat map, of a cell."""

PALETTE = 256
"""Colours of the picture: a byte for each point, and a third of the file."""

Report = Mapping[str, Any]
"""As ``report_of`` gives it."""


def plot_comparison(report: Report, path: Path, title: str) -> None:
    """Write a PNG: the metric over sparsity, overlaps of masks, and kept shares of weights layer by layer.

    Every line begins at the dense model; error bars reach from the lowest to the highest seed. Where several recoveries
    were compared, each has a panel; overlaps and kept shares do not depend on it, and stand once.

    Raises:
        OSError: the file cannot be written.
    """
    rows_of_maps = -(-len(report["levels"]) // COLUMNS)
    map_height = MARGIN + CELL * max(len(report["scorers"]), 4)
    heights = [max(LINES_HEIGHT, LEGEND_LINE * (len(report["scorers"]) + 6)), *[rows_of_maps * map_height] * 3]
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=110, layout="constrained")
    figure.suptitle(title, color=INK)
    lines, overlaps, attention, ffn = figure.subfigures(4, 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_lines(lines, report)
    _draw_maps(overlaps, "overlap of what is kept (Jaccard index of weights)", report, _draw_overlap, "viridis")
    for part, sublayer, name in ((attention, Sublayer.ATTENTION, "heads"), (ffn, Sublayer.FFN, "neurons")):
        what = name if report["pattern"] == "structured" else f"{sublayer.value} weights"
        _draw_maps(part, f"share of {what} kept, by layer", report, _drawer_of_kept(sublayer), "cividis")
    figure.savefig(path)
    with Image.open(path) as drawn:
        small = drawn.convert("RGB").quantize(PALETTE)
    small.save(path, optimize=True)


def _draw_lines(part: SubFigure, report: Report) -> None:
    """Draw one panel a recovery beside each other, all on one scale."""
    recovers = sorted({Recover(row["recover"]) for row in report["rows"]}, key=list(Recover).index)
    panels = part.subplots(1, len(recovers), sharey=True, squeeze=False)[0]
    for axes, recover in zip(panels, recovers, strict=True):
        _draw_panel(axes, report, recover)
        if len(recovers) > 1:
            axes.set_title(f"recovery: {recover}", fontsize=10)
    seeds = "1 seed" if report["seeds"] == 1 else f"mean of {report['seeds']} seeds, lowest to highest"
    panels[0].set_ylabel(f"{report['metric']} ({seeds})")
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_panel(axes: Axes, report: Report, recover: Recover) -> None:
    dense = report["dense"]
    axes.axhspan(*dense["interval"], color=SOFT, alpha=0.2, lw=0)
    axes.axhline(dense["value"], color=INK, ls=":", label="dense (95 % interval)")
    for index, scorer in enumerate(report["scorers"]):
        cuts = [row for row in report["rows"] if (row["scorer"], row["recover"]) == (scorer, recover)]
        line = [{"achieved_sparsity": 0.0, "value": dense["value"], "values": [dense["value"]]}, *cuts]
        axes.errorbar(
            [row["achieved_sparsity"] for row in line],
            [row["value"] for row in line],
            yerr=[
                [row["value"] - min(row["values"]) for row in line],
                [max(row["values"]) - row["value"] for row in line],
            ],
            color=COLORS[index % len(COLORS)],
            marker=MARKERS[index // len(COLORS) % len(MARKERS)],
            ls=STYLES[index // len(COLORS) % len(STYLES)],
            capsize=3,
            lw=1.6,
            label=scorer,
        )
    axes.set_xlabel("share of encoder weights removed")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e8eef1")


Drawer = Callable[[Axes, Report, int, str], AxesImage]
"""Draws the heat map of the level of an index into axes, by a colour map."""


def _draw_maps(part: SubFigure, title: str, report: Report, draw: Drawer, colors: str) -> None:
    """Draw one heat map a level, with one scale for all."""
    part.suptitle(title, color=INK)
    levels = report["levels"]
    places = part.subplots(-(-len(levels) // COLUMNS), min(len(levels), COLUMNS), squeeze=False).flatten()
    for index, axes in enumerate(places):
        if index >= len(levels):
            axes.set_axis_off()
            continue
        image = draw(axes, report, index, colors)
        axes.set_title(f"sparsity {levels[index]:g}", fontsize=10)
        axes.set_yticks(range(len(report["scorers"])), report["scorers"], fontsize=8)
    part.colorbar(image, ax=list(places), shrink=0.8, pad=0.01)


def _draw_overlap(axes: Axes, report: Report, index: int, colors: str) -> AxesImage:
    values = np.array(report["overlap"][index]["overall"])
    scorers = report["scorers"]
    turn, anchor = (90, "center") if len(scorers) >= DENSE_TICKS else (40, "right")
    axes.set_xticks(range(len(scorers)), scorers, rotation=turn, ha=anchor, fontsize=8)
    return _heat_map(axes, values, colors)


def _drawer_of_kept(sublayer: Sublayer) -> Drawer:
    def draw(axes: Axes, report: Report, index: int, colors: str) -> AxesImage:
        level = report["levels"][index]
        kept = {row["scorer"]: row["kept"][sublayer] for row in report["rows"] if row["sparsity"] == level}
        values = np.array([kept[scorer] for scorer in report["scorers"]])
        axes.set_xticks(range(values.shape[1]), [str(layer) for layer in range(values.shape[1])], fontsize=8)
        axes.set_xlabel("layer", fontsize=8)
        return _heat_map(axes, values, colors)

    return draw


def _heat_map(axes: Axes, values: np.ndarray[Any, Any], colors: str) -> AxesImage:
    """Draw values from 0 to 1, each written into its cell."""
    image = axes.imshow(values, cmap=colors, vmin=0.0, vmax=1.0, aspect="auto")
    size = 8 if values.shape[1] < DENSE_TICKS else 6
    for (row, column), value in np.ndenumerate(values):
        ink = "white" if value < 0.55 else "black"
        words = f"{value:.2f}" if values.shape[1] < DENSE_TICKS else _short(value)
        axes.text(column, row, words, ha="center", va="center", color=ink, fontsize=size)
    return image


def _short(value: float) -> str:
    """Return a number from 0 to 1 in three characters: ``.97``, ``1``."""
    return "1" if value >= 0.995 else f"{value:.2f}".removeprefix("0")
