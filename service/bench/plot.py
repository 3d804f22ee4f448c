"""The report as a picture: throughput and speed-up of every way over the levels, and where the time goes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, PercentFormatter

from pruning.plot import COLORS, INK, SOFT
from pruning.spec import Precision
from service.bench.report import Level, Report
from service.bench.tables import TITLES, name_of
from service.bench.verdict import NAMES

STAGE_COLORS = {
    "tokenization": "#d9a441",
    "packing": "#8e6c8a",
    "inference": "#1f6f8b",
    "answer": "#c8553d",
    "rest": "#d5dde1",
}
LINES = ("-", "--", ":")
"""One per precision, in the order of the report."""


def plot_report(report: Report, path: Path) -> None:
    """Write a PNG: texts a second and speed-up of each way above, stacked shares of the time below.

    Raises:
        OSError: the file cannot be written.
    """
    ways = list(report.levels[0].ways)
    figure = Figure(figsize=(11.5, 7.6), dpi=120, layout="constrained")
    (above,), (below,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.0, 0.9))
    _draw_lines(above.subplots(1, 2), report, ways)
    for axes, way in zip(below.subplots(1, len(ways), sharey=True, squeeze=False)[0], ways, strict=True):
        _draw_shares(axes, report.levels, way)
    below.supylabel("share of the time", fontsize="medium", color=INK)
    shown = [
        stage for stage in STAGE_COLORS if any(stage in level.ways[way][1] for level in report.levels for way in ways)
    ]
    patches = [Patch(color=STAGE_COLORS[stage], label=NAMES[stage]) for stage in shown]
    below.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)
    threads = f"{report.threads} thread{'s' * (report.threads > 1)}"
    figure.suptitle(f"{report.model}: texts of {report.mean_tokens:.0f} tokens on average, {threads}", color=INK)
    figure.savefig(path)


def _draw_lines(panels: Sequence[Axes], report: Report, ways: Sequence[str]) -> None:
    rate, gain = panels
    precisions = list(report.ceilings)
    for precision, dashes in zip(precisions, LINES, strict=False):
        levels = [level for level in report.levels if level.subject.spec.precision is precision]
        sparsity = [level.subject.achieved_sparsity for level in levels]
        for way, color in zip(ways, COLORS, strict=False):
            label = TITLES[way] if precision is precisions[0] else None
            style: dict[str, Any] = {"color": color, "ls": dashes, "marker": "o", "ms": 4, "lw": 2}
            rate.plot(sparsity, [level.ways[way][0] for level in levels], label=label, **style)
            gain.plot(sparsity, [report.speedup(level, way) for level in levels], **style)
        if precision is precisions[0]:
            gain.plot(sparsity, [report.ideal(level) for level in levels], color=SOFT, ls="-.", label="ideal (MACs)")
    against = "dense" if precisions == [Precision.FLOAT32] else "dense of the same precision"
    rate.set(title="throughput", ylabel="texts per second", yscale="log")
    gain.set(title=f"speed-up against {against}", ylabel="times as fast")
    if len(precisions) > 1:
        for precision, dashes in zip(precisions, LINES, strict=False):
            gain.plot([], [], color=INK, ls=dashes, lw=2, label=precision.value)
    rate.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    rate.yaxis.set_major_formatter("{x:.0f}")
    rate.yaxis.set_minor_formatter("{x:.0f}")
    rate.tick_params(axis="y", which="minor", labelsize="x-small")
    gain.legend(frameon=False, loc="upper left")
    rate.legend(frameon=False, loc="upper left", fontsize="small")
    for axes in panels:
        axes.set_xlabel("share of encoder weights removed")
        _plain(axes)
        axes.grid(color="#e8eef1")
    low, high = rate.get_ylim()
    rate.set_ylim(low, high * (high / low) ** (0.08 * len(ways)))  # room for the legend


def _draw_shares(axes: Axes, levels: Sequence[Level], way: str) -> None:
    """Stack the stages' shares, scaled to a whole where stages ran side by side."""
    names = [name_of(level).replace(" ", "\n") for level in levels]
    wholes = [sum(level.ways[way][1].values()) for level in levels]
    bottom = [0.0] * len(levels)
    for stage, color in STAGE_COLORS.items():
        shares = [level.ways[way][1].get(stage, 0.0) / whole for level, whole in zip(levels, wholes, strict=True)]
        axes.bar(range(len(levels)), shares, 0.8, bottom, color=color)
        for index, (share, below) in enumerate(zip(shares, bottom, strict=True)):
            if stage == "inference":
                axes.text(index, below + share / 2, f"{share:.0%}", ha="center", va="center", color="w", fontsize=8)
        bottom = [below + share for below, share in zip(bottom, shares, strict=True)]
    axes.set_xticks(range(len(levels)), names, fontsize=8)
    axes.set_title(TITLES[way], fontsize="medium")
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
