"""A spike as a picture: the level that answered, what was refused, and how late answers were, second by second."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

COLORS = ("#1f6f8b", "#c8553d", "#5b8c5a", "#8e6c8a")
"""One per contestant."""
INK, SHADE = "#22313f", "#eef2f4"


def plot_spike(
    timelines: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, *, spike_s: float, target_s: float, title: str
) -> None:
    """Write a PNG of every contestant's timeline.

    Args:
        timelines: rows of ``loadtests.spikes.timeline``, by contestant.
        path: of the file.
        spike_s: how long the spike was; it begins at 0.
        target_s: the latency target.
        title: above all panels.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(9.5, 7.2), dpi=120, layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    for (name, rows), color in zip(timelines.items(), COLORS, strict=False):
        seconds = [row["second"] for row in rows]
        style: dict[str, Any] = {"color": color, "label": name, "lw": 1.8, "where": "post"}
        panels[0].step(seconds, [_or_nan(row["sparsity"]) for row in rows], **style)
        panels[1].step(seconds, [row["refused"] for row in rows], **style)
        panels[2].step(seconds, [1e3 * _or_nan(row["p99_s"]) for row in rows], **style)
    for panel, words in zip(panels, ("sparsity of the answers", "refused a second", "p99, ms"), strict=True):
        panel.axvspan(0, spike_s, color=SHADE, zorder=0)
        panel.set_ylabel(words, color=INK)
        panel.grid(alpha=0.3)
    panels[0].set_ylim(-0.02, 1.0)
    panels[2].set_yscale("log")
    panels[2].axhline(1e3 * target_s, color=INK, ls=":", lw=1)
    panels[2].set_xlabel("seconds from the beginning of the spike", color=INK)
    panels[0].legend(frameon=False, ncols=len(timelines), loc="upper right")
    figure.suptitle(title, color=INK)
    figure.savefig(path)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
