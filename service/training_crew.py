"""``sparsedial recover --workers N``: the training of a cut by several workers, which Ray Train starts and watches.

Ray is imported inside the functions alone: what ``service.fast_path`` sets must stand in the environment before.
"""

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pruning.errors import PruningError, RecoveryError, SpecError
from pruning.files import ASIDE
from pruning.pipeline import cut
from pruning.recovery.recipe import Recipe
from pruning.recovery.training import Progress, Report
from pruning.spec import PruneSpec
from pruning.workbench import Workbench
from service.assignment import Assignment
from service.fast_path import set_training_environment
from service.progress_board import ProgressBoard
from service.ray_connection import connect
from service.settings import Device
from service.sources import Sources
from service.terminal import say

LOOK_S = 0.25
"""Seconds between two looks at the progress."""
REMEDY = "the same command with --resume goes on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hiring:
    """How many workers train, where."""

    workers: int
    device: Device
    address: str | None
    """Ray cluster to join; None: one of our own, on this machine."""

    def check(self, recipe: Recipe) -> None:
        """Return if so many workers can take part.

        Raises:
            SpecError: there are none, or more than a batch has rows, or Ray Train is not installed.
        """
        if self.workers < 1:
            raise SpecError(f"--workers must be at least 1; got {self.workers}")
        if self.workers > recipe.batch_rows:
            raise SpecError(
                f"--workers {self.workers} cannot share batches of {recipe.batch_rows} rows; raise --batch-rows, or "
                f"use at most {recipe.batch_rows} workers"
            )
        if self.workers > 1 and find_spec("pandas") is None:
            raise SpecError(
                f"--workers {self.workers} needs Ray Train, which is not installed; run: pip install "
                "'sparsedial[train]', or train with one worker"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewTrainer:
    """Has a cut trained by workers that read model, rows and store under the same paths as this process."""

    hiring: Hiring
    bench: Workbench
    sources: Sources
    rows: Path
    recipe: Recipe
    report: Report

    def __call__(self, spec: PruneSpec, cut_name: str, recipe_id: str) -> None:
        """Return when worker 0 has kept the trained cut.

        Raises:
            PruningError: what stopped a worker, or too few GPUs or cores.
            RecoveryError: a worker is gone.
        """
        cut(self.bench, spec.before_training())  # what it caches, no worker has to compute
        say(f"starting Ray and {self.hiring.workers} workers")
        with _cluster(self.hiring) as resources:
            assignment = Assignment(
                sources=self.sources, rows=self.rows, spec=spec, recipe=self.recipe, cut_name=cut_name,
                recipe_id=recipe_id,
            )  # fmt: skip
            self._train(assignment, resources)

    def _train(self, assignment: Assignment, resources: dict[str, float]) -> None:
        """Let Ray Train do it, and pass on what worker 0 reports."""
        import ray
        from ray.exceptions import RayError
        from ray.train import LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchTrainer

        from service.training_worker import work

        board = ray.remote(num_cpus=0)(ProgressBoard).remote()
        with tempfile.TemporaryDirectory(
            dir=self.sources.store, prefix=".training.", suffix=ASIDE, ignore_cleanup_errors=True
        ) as folder:  # where all nodes see it, as Ray Train asks; our checkpoints lie elsewhere
            trainer = TorchTrainer(
                work,
                train_loop_config={"assignment": assignment, "board": board},
                scaling_config=ScalingConfig(
                    num_workers=self.hiring.workers, use_gpu="GPU" in resources, resources_per_worker=resources
                ),
                run_config=RunConfig(name="run", storage_path=folder, logging_config=LoggingConfig(log_level="ERROR")),
            )
            outcome = _in_background(trainer.fit)
            try:
                while not outcome.done():
                    wait([outcome], LOOK_S)
                    for progress in ray.get(board.take.remote()):
                        self.report(Progress(**progress))
                outcome.result()
            except TrainingFailedError as error:
                raise refusal_of(error) from error
            except RayError as error:
                raise RecoveryError(f"Ray stopped the training ({_first_line(error)}); {REMEDY}") from error


@contextmanager
def _cluster(hiring: Hiring) -> Iterator[dict[str, float]]:
    """Connect to the cluster for the block, which gets what each worker takes of it; a cluster of our own then ends."""
    set_training_environment(own_cluster=hiring.address is None)
    threads = max(1, len(os.sched_getaffinity(0)) // hiring.workers)
    with redirect_stdout(sys.stderr):  # what Ray prints by itself
        import ray

        connect(hiring.address, cores=threads * hiring.workers)
        try:
            there = ray.cluster_resources() if hiring.address is None else ray.available_resources()
            yield taken_by_each(hiring, there, threads)
        finally:
            ray.shutdown()


def taken_by_each(hiring: Hiring, there: dict[str, float], threads: int) -> dict[str, float]:
    """Return what every worker takes of a cluster that has ``there`` free: one GPU, or cores.

    On a cluster of our own the workers share this machine's cores out, ``threads`` each; on another one each takes one.

    Raises:
        PruningError: there is not enough for all of them; Ray would wait for it.
    """
    on_gpus = hiring.device is Device.CUDA or (hiring.device is Device.AUTO and there.get("GPU", 0) > 0)
    cores = threads if hiring.address is None else 1
    taken = {"CPU": float(cores)} | ({"GPU": 1.0} if on_gpus else {})
    for what, each in taken.items():
        free = there.get(what, 0)
        if free < each * hiring.workers:
            remedy = ", or use --device cpu" if what == "GPU" else ""
            raise PruningError(
                f"--workers {hiring.workers} need {each * hiring.workers:g} {what}s, and {free:g} are free; "
                f"lower --workers{remedy}, or add nodes"
            )
    return taken


def refusal_of(error: Any) -> PruningError:
    """Return what Ray Train's failure means: a worker's own refusal if there is one, else that it is gone."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        if isinstance(failure, PruningError):
            return failure
    who = f"worker {min(failures)}" if failures else "the training"
    found = failures[min(failures)] if failures else error
    reason = getattr(found, "health_check_failure", found)  # Ray Train's words for it say no more than that
    return RecoveryError(f"{who} ended before its time ({_first_line(reason)}); {REMEDY}")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _in_background(task: Callable[[], object]) -> "Future[object]":
    """Start a task in a thread: this one shows progress, and is the one that Ctrl-C interrupts.

    The thread does not keep the process alive: where the cluster ends, so does what it waits for.
    """
    outcome: Future[object] = Future()

    def run() -> None:
        try:
            outcome.set_result(task())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome
