"""Builds variants in a process of its own, at the lowest priority, so that serving never waits for a build.

One process per service, started once and kept warm: the base model, the rows and the calibration stay loaded, and
a new sparsity costs only its own arithmetic. Nothing here imports Ray.
"""

import logging
import os

import torch

from pruning.errors import PruningError, StoreError
from pruning.pipeline import build_variant
from pruning.prediction import SCREEN_SEQUENCES, judged_logits
from pruning.spec import PruneSpec
from pruning.variants import Manifest
from pruning.workbench import Workbench
from service.operations import Cause
from service.pace import Pace
from service.protocol import Refusal
from service.sources import Sources

logger = logging.getLogger(__name__)


class VariantBuilder:
    """Holds a workbench open and builds one variant at a time."""

    def __init__(self, sources: Sources, threads: int) -> None:
        """Open the workbench and give way to everything else on this machine."""
        yield_cpu()
        torch.set_num_threads(threads)
        self._threads = threads
        self._bench = Workbench.open(sources.model, sources.train, sources.evaluation, sources.store)

    def calibrate(self) -> bool:
        """Score the model unless it was; return whether it was done now."""
        return self._bench.calibrate()

    def warm(self) -> int:
        """Do ahead of the first build what every build needs; return the process id.

        The calibration and the dense answers are read, and the first batch is judged: the first use of a precision
        takes the matrix library a second.
        """
        self._bench.calibration  # noqa: B018, a cached property: reading it loads the file
        self._bench.reference()
        judged_logits(self._bench.dense_model(), self._bench.evaluation.sequences[:SCREEN_SEQUENCES])
        return os.getpid()

    def build(self, spec: PruneSpec) -> Manifest | Refusal:
        """Return the manifest of the variant of ``spec``, or why there is none."""
        try:
            return build_variant(
                self._bench,
                spec,
                lambda name: logger.info("building %s: %s", spec.sparsity, name),
                Pace(self._threads),
            )
        except PruningError as error:
            return Refusal(message=str(error), cause=_cause_of(error))
        except OSError as error:
            words = f"the variant could not be built: {error}; check the disk of {self._bench.root}"
            return Refusal(message=words, cause=Cause.STORAGE)


def _cause_of(error: PruningError) -> Cause:
    """Return whether the disk or the wish stands against a build; a cache that could not be written names the disk."""
    storage = isinstance(error, StoreError) or isinstance(error.__cause__, OSError)
    return Cause.STORAGE if storage else Cause.BUILD


def yield_cpu() -> None:
    """Run only when nothing else wants the processor (SCHED_IDLE), or at nice 19 where the system has no such class."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, PermissionError, OSError):
        os.nice(19)
