"""A run with kills as a picture: latency over time, failed requests, and when what was killed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from loadtests.kills import Kill
from loadtests.records import Reply

INK, SOFT, GOOD, BAD = "#22303a", "#d5dde1", "#1f6f8b", "#c8553d"


def draw_timeline(kills: Sequence[Kill], replies: Sequence[Reply], path: Path) -> None:
    """Write a PNG.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(11.5, 4.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    answered = [reply for reply in replies if not reply.failed]
    failed = [reply for reply in replies if reply.failed]
    dots: dict[str, Any] = {"s": 3, "lw": 0, "color": GOOD, "label": "answered"}
    axes.scatter([one.intended_s for one in answered], [one.latency_s * 1e3 for one in answered], **dots)
    crosses: dict[str, Any] = {"marker": "x", "s": 18, "lw": 1, "color": BAD, "label": "failed"}
    axes.scatter([one.intended_s for one in failed], [one.latency_s * 1e3 for one in failed], **crosses)
    end_s = max((reply.done_s for reply in replies), default=0.0)
    for kill in kills:
        window = kill.window(end_s)
        axes.axvspan(window.start_s, window.end_s, color=SOFT, alpha=0.5, lw=0, zorder=0)
        axes.axvline(kill.killed_s, color=INK, lw=0.8)
        place: dict[str, Any] = {"rotation": 90, "va": "top", "fontsize": "small", "color": INK}
        axes.annotate(str(kill.part), (kill.killed_s, 1.0), xycoords=("data", "axes fraction"), **place)
    axes.set(yscale="log", xlabel="seconds", ylabel="latency, ms", title="Kills (line) until all is back (grey)")
    axes.legend(loc="upper right", frameon=False)
    figure.savefig(path)
