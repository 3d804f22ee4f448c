"""The laws of training together, each with two real processes: they do what one alone does, and end alike."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, multiprocessing

from pruning.data import LabelledSet
from pruning.prediction import predict_logits
from pruning.recovery.checkpoint import Checkpoints
from pruning.recovery.crew import SOLO
from pruning.recovery.distillation import train_cut
from pruning.slim.convert import build_slim
from pruning.workbench import Workbench
from tests.pruning.recovery import gang
from tests.pruning.recovery.conftest import HALF, SHORT, bench_at, rows_of, trained
from tests.pruning.recovery.gang import GRADUAL, SIZE, Killed, Learned, compute_float32, kill


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    compute_float32(monkeypatch)


@pytest.fixture(scope="module")
def together(learned: Learned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what two processes did, that of ``resumed`` from where one alone was killed."""
    folder = tmp_path_factory.mktemp("gang") / "store"
    bench, rows = bench_at(learned, folder), rows_of(learned)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        compute_float32(patch)
        trained(bench, rows, SHORT, HALF, Checkpoints(folder, "resumed"), report=kill)
    multiprocessing.spawn(gang.work, (learned, folder), nprocs=SIZE)
    return folder


def layers_of(folder: Path, job: str, rank: int = 0) -> dict[str, Tensor]:
    return load_file(folder / f"{job}-{rank}.safetensors")


def standing_of(folder: Path, job: str, rank: int = 0) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / f"{job}-{rank}.json").read_text())
    return values


def assert_alike(bench: Workbench, rows: LabelledSet, one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """The models answer alike. Not every weight does: AdamW makes whole steps of gradients that are but rounding."""
    ours, theirs = (predict_logits(build_slim(bench.base, layers), rows.sequences) for layers in (one, other))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("job", [gang.structured, gang.unstructured], ids=lambda job: job.__name__)
def test_two_workers_train_what_one_alone_trains(
    job: Any, together: Path, learned: Learned, bench: Workbench, rows: LabelledSet
) -> None:
    alone = job(learned, bench.root, SOLO)
    assert_alike(bench, rows, alone.layers, layers_of(together, job.__name__))
    assert standing_of(together, job.__name__)["step"] == alone.standing.step
    assert standing_of(together, job.__name__)["best_score"] == alone.standing.best_score


@pytest.mark.parametrize("job", ["structured", "unstructured", "by_the_clock", "resumed"])
def test_all_workers_end_with_the_same_bits(together: Path, job: str) -> None:
    one, other = (layers_of(together, job, rank) for rank in range(SIZE))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert standing_of(together, job, 0) == standing_of(together, job, 1)


def test_the_clock_of_worker_0_says_when_all_stop(together: Path) -> None:
    # It looks twice in a step, at 1 second a look; the other one's clock shows 4.
    assert 12.0 <= standing_of(together, "by_the_clock", 1)["seconds"] <= 14.0
    assert standing_of(together, "by_the_clock", 1)["step"] >= 6


def test_one_worker_goes_on_where_two_were_killed(together: Path, bench: Workbench, rows: LabelledSet) -> None:
    checkpoints = Checkpoints(together, "killed")
    assert checkpoints.newest()[0].step == 2
    whole = trained(bench, rows, SHORT, HALF, Checkpoints(bench.root, "whole"))
    resumed = trained(bench, rows, SHORT, HALF, checkpoints, resume=True)
    assert resumed.standing.step == whole.standing.step
    assert_alike(bench, rows, resumed.layers, whole.layers)


def test_two_workers_go_on_where_one_was_killed(together: Path, bench: Workbench, rows: LabelledSet) -> None:
    whole = trained(bench, rows, SHORT, HALF, Checkpoints(bench.root, "whole"))
    assert standing_of(together, "resumed")["step"] == whole.standing.step
    assert_alike(bench, rows, layers_of(together, "resumed"), whole.layers)


def test_structures_that_go_are_chosen_together(together: Path, bench: Workbench, rows: LabelledSet) -> None:
    train_cut(bench, HALF, rows, GRADUAL)
    ((alone, _),), ((ours, record),) = (
        [
            (load_file(path), json.loads((path.parent / "record.json").read_text()))
            for path in root.glob("recovered/*/*/layers.safetensors")
        ]
        for root in (bench.root, together)
    )
    assert record["training"]["workers"] == SIZE
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: alone[name].shape for name in alone}
    assert_alike(bench, rows, ours, alone)
