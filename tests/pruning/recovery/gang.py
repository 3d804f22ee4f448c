"""What each of two processes does that train together; ``test_crew`` starts them."""

import itertools
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import distributed

from pruning.errors import RecoveryError
from pruning.files import write_json
from pruning.recovery.checkpoint import Checkpoints
from pruning.recovery.crew import Crew, Gang
from pruning.recovery.distillation import train_cut
from pruning.recovery.training import Progress, Trained
from tests.pruning.recovery.conftest import CPU, HALF, SHORT, ZEROS, bench_at, rows_of, trained

SIZE = 2
UNEVEN = replace(SHORT, batch_rows=33, label_weight=0.3)
"""Of 100 rows every fourth batch has one row, fewer than there are workers; shares of the others are uneven."""
GRADUAL = replace(SHORT, steps=10, gradual=1.0, cut_every=1)
TIMED = replace(SHORT, steps=None, minutes=0.2, check_every=1)
KILLED_AT = 3

Learned = tuple[Path, Path, Path, Path]


class Killed(BaseException):
    """As sudden as a signal."""


def kill(progress: Progress) -> None:
    if progress.step == KILLED_AT:
        raise Killed


def structured(learned: Learned, folder: Path, crew: Crew) -> Trained:
    return trained(bench_at(learned, folder), rows_of(learned), UNEVEN, HALF, Checkpoints(folder, "s"), crew=crew)


def unstructured(learned: Learned, folder: Path, crew: Crew) -> Trained:
    return trained(bench_at(learned, folder), rows_of(learned), SHORT, ZEROS, Checkpoints(folder, "u"), crew=crew)


def by_the_clock(learned: Learned, folder: Path, crew: Crew) -> Trained:
    """Every worker has a clock of its own, and each runs at another pace."""
    ticks = itertools.count(0.0, 1.0 + 3.0 * crew.rank)
    bench, rows, checkpoints = bench_at(learned, folder), rows_of(learned), Checkpoints(folder, "t")
    return trained(bench, rows, TIMED, HALF, checkpoints, crew=crew, clock=lambda: next(ticks))


def killed(learned: Learned, folder: Path, crew: Crew) -> None:
    bench, rows, checkpoints = bench_at(learned, folder), rows_of(learned), Checkpoints(folder, "killed")
    with pytest.raises(Killed):
        trained(bench, rows, SHORT, HALF, checkpoints, crew=crew, report=kill)


def resumed(learned: Learned, folder: Path, crew: Crew) -> Trained:
    bench, rows, checkpoints = bench_at(learned, folder), rows_of(learned), Checkpoints(folder, "resumed")
    return trained(bench, rows, SHORT, HALF, checkpoints, crew=crew, resume=True)


def gradual(learned: Learned, folder: Path, crew: Crew) -> None:
    train_cut(bench_at(learned, folder), HALF, rows_of(learned), GRADUAL, crew=crew)


def left_alone(learned: Learned, folder: Path, crew: Crew) -> None:
    """Worker 1 ends, worker 0 does not know."""
    if crew.rank == 0:
        with pytest.raises(RecoveryError, match=r"is gone .* the same command with --resume goes on"):
            while True:  # until the connection breaks
                crew.total([torch.ones(1)])


JOBS: tuple[Callable[[Learned, Path, Crew], Trained | None], ...] = (
    structured, unstructured, by_the_clock, killed, resumed, gradual, left_alone
)  # fmt: skip


def work(rank: int, learned: Learned, folder: Path) -> None:
    """Do all jobs as worker ``rank``; results lie in the folder."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=SIZE)
    crew = Gang(CPU)
    with pytest.MonkeyPatch.context() as patch:
        compute_float32(patch)
        for job in JOBS:
            outcome = job(learned, folder, crew)
            if outcome is not None:
                save_file(outcome.layers, folder / f"{job.__name__}-{rank}.safetensors")
                write_json(folder / f"{job.__name__}-{rank}.json", asdict(outcome.standing))
    distributed.destroy_process_group()  # its threads would be cut off at the end, which aborts the process


def compute_float32(patch: pytest.MonkeyPatch) -> None:
    """Let rounding be small enough to tell a law from a coincidence."""
    for module in ("lesson", "distillation"):
        patch.setattr(f"pruning.recovery.{module}.computes_bfloat16", lambda device: False)
