"""The tiny model loaded, encoded and calibrated once; every workbench gets its own folder."""

import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from pruning.data import LabelledSet, calibration_sample
from pruning.encoder import BaseModel, load_base_model
from pruning.tasks.labels import encode_rows, read_rows
from pruning.tokenization import TextTokenizer
from pruning.workbench import Workbench

# No deadline: how long one example takes depends on who else is on the machine.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def base(tiny_model_dir: Path) -> BaseModel:
    return load_base_model(tiny_model_dir)


@pytest.fixture(scope="session")
def train(base: BaseModel, tiny_rows: tuple[Path, Path]) -> LabelledSet:
    rows = encode_rows(read_rows(tiny_rows[0], base.labels), TextTokenizer.load(base.path))
    return calibration_sample(rows, len(rows), seed=0)


@pytest.fixture(scope="session")
def judged(base: BaseModel, tiny_rows: tuple[Path, Path]) -> LabelledSet:
    return encode_rows(read_rows(tiny_rows[1], base.labels), TextTokenizer.load(base.path))


@pytest.fixture(scope="session")
def calibrated_root(
    base: BaseModel, train: LabelledSet, judged: LabelledSet, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("calibrated")
    Workbench(base, train, judged, root).calibrate()
    return root


@pytest.fixture
def bench(base: BaseModel, train: LabelledSet, judged: LabelledSet, calibrated_root: Path, tmp_path: Path) -> Workbench:
    """A calibrated workbench with an empty store."""
    root = tmp_path / "store"
    shutil.copytree(calibrated_root, root)
    return Workbench(base, train, judged, root)
