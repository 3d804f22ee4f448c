from pathlib import Path

import pytest

from pruning.comparison.request import Comparison
from pruning.material import Material


@pytest.fixture(scope="session")
def material(tiny_model_dir: Path, tiny_rows: tuple[Path, Path]) -> Material:
    return Material.load(tiny_model_dir, *tiny_rows)


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(scorers=("fisher", "wanda"), levels=(0.3, 0.6), seeds=2)
