"""One worker of ``sparsedial recover --workers N``, in a process that Ray Train started, on whatever node."""

from dataclasses import asdict
from typing import Any

import ray
import ray.train.torch

from pruning.errors import RecoveryError
from pruning.identity import cut_id
from pruning.recovery.crew import Gang
from pruning.recovery.distillation import train_cut
from pruning.recovery.training import Progress, Report
from pruning.workbench import Workbench
from service.assignment import Assignment
from service.training_rows import training_rows


def work(config: dict[str, Any]) -> None:
    """Do this worker's part of ``config["assignment"]``; worker 0 posts its progress to ``config["board"]``.

    Raises:
        PruningError: the files cannot be used or are others than the command's, or the training cannot go on.
    """
    assignment: Assignment = config["assignment"]
    sources, spec, recipe = assignment.sources, assignment.spec, assignment.recipe
    bench = Workbench.open(sources.model, sources.train, sources.evaluation, sources.store)
    rows = training_rows(bench.base, assignment.rows, sources.evaluation)
    if (cut_id(bench, spec), recipe.digest_with(rows.digest)) != (assignment.cut_name, assignment.recipe_id):
        raise RecoveryError(
            f"on node {ray.util.get_node_ip_address()} the model or the rows are others than the command's; every node "
            "needs the same files under the same paths"
        )
    device = ray.train.torch.get_device()
    crew = Gang(device)
    report = _poster(config["board"]) if crew.rank == 0 else _nothing
    train_cut(bench, spec, rows, recipe, device=str(device), report=report, crew=crew)


def _poster(board: Any) -> Report:
    """Return what posts progress, and waits until it hangs there: the command is to see the last one too."""
    return lambda progress: ray.get(board.post.remote(asdict(progress)))


def _nothing(progress: Progress) -> None:
    """Report to nobody."""
