"""Builds variants in a process of its own, at the lowest priority, so that serving never waits for a build.

One process per service, started once and kept warm: the base model, the rows and the calibration stay loaded, and
a new sparsity costs only its own arithmetic. Nothing here imports Ray.
"""

import logging
import os
from functools import partial

import torch

from pruning.cascades import calibrate_cascades
from pruning.errors import PruningError, StoreError
from pruning.freed_memory import give_back
from pruning.pipeline import TIMING, build_variant
from pruning.prediction import SCREEN_SEQUENCES, judged_logits
from pruning.spec import PruneSpec
from pruning.variants import Manifest
from pruning.workbench import Workbench
from service.operations import Cause
from service.pace import Pace
from service.protocol import Refusal
from service.served import require_served
from service.sources import Sources

logger = logging.getLogger(__name__)


class VariantBuilder:
    """Holds a workbench open and builds one variant at a time."""

    def __init__(self, sources: Sources, threads: int, keep_variants: int) -> None:
        """Open the workbench and give way to everything else on this machine.

        Args:
            sources: model, rows and store.
            threads: for the arithmetic.
            keep_variants: how many the store keeps beside those in use.
        """
        yield_cpu()
        torch.set_num_threads(threads)
        self._threads = threads
        self._keep_variants = keep_variants
        self._bench = Workbench.open(sources.model, sources.train, sources.evaluation, sources.store)
        require_served(self._bench.base)

    def calibrate(self) -> bool:
        """Score the model unless it was; return whether it was done now."""
        return self._bench.calibrate()

    def cascade(self, ladder: list[Manifest]) -> None:
        """Calibrate the cascades of a ladder that the store lacks."""
        calibrate_cascades(self._bench, ladder)

    def warm(self) -> int:
        """Do ahead of the first build what every build needs; return the process id.

        The calibration and the dense answers are read, and the first batch is judged: the first use of a precision
        takes the matrix library a second.
        """
        self._bench.calibration  # noqa: B018, a cached property: reading it loads the file
        self._bench.reference()
        judged_logits(self._bench.dense_model(), self._bench.evaluation.sequences[:SCREEN_SEQUENCES])
        return os.getpid()

    def build(self, spec: PruneSpec, in_use: frozenset[str] | None = None) -> Manifest | Refusal:
        """Return the manifest of the variant of ``spec``, or why there is none.

        Then the oldest variants go that are neither this one nor ``in_use``, if there are too many; None keeps all.
        One process builds and removes, one thing at a time: what a build has found there stays until it is in use.
        """
        try:
            with Pace(self._threads) as pace:
                manifest = build_variant(self._bench, spec, partial(_begin, spec, pace), pace)
        except PruningError as error:
            return Refusal(message=str(error), cause=_cause_of(error))
        except OSError as error:
            words = f"the variant could not be built: {error}; check the disk of {self._bench.root}"
            return Refusal(message=words, cause=Cause.STORAGE)
        finally:
            give_back()
        if in_use is not None:
            self._make_room(manifest.variant_id, in_use)
        return manifest

    def _make_room(self, newest: str, in_use: frozenset[str]) -> None:
        store = self._bench.store
        store.touch(newest)
        if gone := store.keep_newest(self._keep_variants, in_use | {newest}):
            logger.info("removed from the store: %s", ", ".join(gone))


def _begin(spec: PruneSpec, pace: Pace, step: str) -> None:
    logger.info("building %s: %s", spec.sparsity, step)
    if step == TIMING:  # what is read there is the speed with all threads
        pace.use_all()


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
