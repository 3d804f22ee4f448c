from pathlib import Path

import pytest

from pruning.frontier import frontier_rows
from pruning.pipeline import build_variant
from pruning.plot import plot_frontier
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
