"""A model that has learned something, rows to recover its cuts with, and one training run on them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pruning.data import LabelledSet
from pruning.pipeline import cut
from pruning.recovery.checkpoint import Checkpoints
from pruning.recovery.crew import SOLO, Crew
from pruning.recovery.lesson import Lesson
from pruning.recovery.recipe import Recipe
from pruning.recovery.student import Student, kept_weights
from pruning.recovery.training import Trained, train
from pruning.spec import Pattern, PruneSpec
from pruning.tasks.labels import encode_rows, read_rows
from pruning.tokenization import TextTokenizer
from pruning.workbench import Workbench
from tests.conftest import train_tiny_model, write_rows, write_tiny_model

CPU = torch.device("cpu")
SHORT = Recipe(steps=6, batch_rows=8, check_every=2, held_out_rows=10)
GRADUAL = replace(SHORT, steps=10, gradual=1.0, cut_every=1)
HALF = PruneSpec(sparsity=0.5)
ZEROS = PruneSpec(sparsity=0.5, pattern=Pattern.UNSTRUCTURED)

Train = Callable[..., Trained]


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, Path]:
    """Model, calibration rows, evaluation rows and a store in which it is calibrated."""
    folder = tmp_path_factory.mktemp("learned")
    train_rows, judged = write_rows(folder / "train.jsonl", 120, seed=1), write_rows(folder / "eval.jsonl", 60, seed=2)
    model = train_tiny_model(write_tiny_model(folder / "model"), train_rows)
    Workbench.open(model, train_rows, judged, folder / "store").calibrate()
    return model, train_rows, judged, folder / "store"


@pytest.fixture
def bench(learned: tuple[Path, Path, Path, Path], tmp_path: Path) -> Workbench:
    """A calibrated workbench with an empty store."""
    return bench_at(learned, tmp_path / "store")


def bench_at(learned: tuple[Path, Path, Path, Path], root: Path) -> Workbench:
    model, train_rows, judged, store = learned
    if not root.exists():
        root.mkdir()
        (root / "calibration").symlink_to(store / "calibration")
    return Workbench.open(model, train_rows, judged, root)


@pytest.fixture(scope="session")
def rows(learned: tuple[Path, Path, Path, Path]) -> LabelledSet:
    """The training rows in the order of their file."""
    return rows_of(learned)


def rows_of(learned: tuple[Path, Path, Path, Path]) -> LabelledSet:
    model, train_rows, _, _ = learned
    return encode_rows(read_rows(train_rows, ("negative", "positive")), TextTokenizer.load(model))


@pytest.fixture
def run(bench: Workbench, rows: LabelledSet, tmp_path: Path) -> Train:
    """Train a cut; ``name`` tells the checkpoints of several runs apart."""

    def run_once(
        recipe: Recipe = SHORT,
        spec: PruneSpec = HALF,
        *,
        name: str = "run",
        **options: Any,
    ) -> Trained:
        return trained(bench, rows, recipe, spec, Checkpoints(tmp_path, name), **options)

    return run_once


def trained(
    bench: Workbench,
    rows: LabelledSet,
    recipe: Recipe,
    spec: PruneSpec,
    checkpoints: Checkpoints,
    *,
    crew: Crew = SOLO,
    **options: Any,
) -> Trained:
    layers, _, _ = cut(bench, spec.before_training())
    kept = None if spec.pattern is Pattern.STRUCTURED else kept_weights(layers)
    return train(
        Lesson(recipe, bench.dense_model(), rows, CPU, crew),
        Student(bench.base, layers, recipe, kept=kept, device=CPU),
        range(100),
        options.pop("held_out", range(100, 120)),
        checkpoints,
        **options,
    )


def without_time(trained: Trained) -> Any:
    """Return how a run stood at its end, but for what the clock said."""
    return replace(trained.standing, seconds=0.0)


def same_layers(one: Trained, other: Trained) -> bool:
    return all(torch.equal(one.layers[name], other.layers[name]) for name in one.layers)
