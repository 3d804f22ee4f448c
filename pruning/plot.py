"""The frontier as a picture: what the dial costs in accuracy, and what it buys in speed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

INK, ACCENT, SOFT = "#22313f", "#1f6f8b", "#9fb8c3"


def plot_frontier(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Write a PNG: accuracy with its 95 % interval, and speed-up beside its ideal, over achieved sparsity."""
    rows = sorted(rows, key=lambda row: row["achieved_sparsity"])
    sparsity = [row["achieved_sparsity"] for row in rows]
    figure = Figure(figsize=(9, 3.8), dpi=130, layout="constrained")
    cost, gain = figure.subplots(1, 2)

    accuracy = [row["accuracy"] for row in rows]
    below = [row["accuracy"] - row["accuracy_interval"][0] for row in rows]
    above = [row["accuracy_interval"][1] - row["accuracy"] for row in rows]
    cost.errorbar(sparsity, accuracy, yerr=[below, above], color=ACCENT, ecolor=SOFT, marker="o", capsize=3, lw=2)
    cost.plot(sparsity, [row["agreement"] for row in rows], color=INK, ls=":", marker=".", label="agreement with dense")
    cost.set(title="what it costs", xlabel="share of encoder weights removed", ylabel="accuracy (95 % interval)")
    cost.legend(frameon=False, loc="lower left")

    if all(row["speedup"] is not None for row in rows):
        gain.plot(sparsity, [row["ideal_speedup"] for row in rows], color=SOFT, ls="--", label="ideal (MACs)")
        gain.plot(sparsity, [row["speedup"] for row in rows], color=ACCENT, marker="o", lw=2, label="measured")
        gain.legend(frameon=False, loc="upper left")
    gain.set(title="what it buys", xlabel="share of encoder weights removed", ylabel="texts per second, against dense")
    for axes in (cost, gain):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e8eef1")
    figure.suptitle(title, color=INK)
    figure.savefig(path)
