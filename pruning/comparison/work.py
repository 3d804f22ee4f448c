"""How much of a comparison is left, so that the time left can be told.

Work counts rows that a cut model answers. What else is done is weighed by what it took of a processor's time on the
embedded model: an estimate, for a bar.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pruning.capture import Progress
from pruning.recovery.recipe import Recipe
from pruning.scores import Streamed, scorer_named
from pruning.spec import Pattern, PruneSpec, Recover, Structures
from pruning.weight_pass import Loss, Plan
from pruning.workbench import Workbench

Watch = Callable[[str, int, int], None]
"""Called with (what is being computed, work done, work in all)."""

FORWARD, BACKWARD = 4, 11
"""A row that passes through a watched dense model, and back through it."""
CURVES = 3000
"""The cost curves of a scorer."""
TRAINED = 3
"""A row that the dense model answers and a cut one learns from."""


class Ledger:
    """The work done so far, told to whoever watches."""

    def __init__(self, total: int, watch: Watch) -> None:
        """Begin with nothing done of ``total``."""
        self._total = total
        self._done = 0
        self._watch = watch

    @contextmanager
    def step(self, what: str, work: int) -> Iterator[Progress]:
        """Count ``work`` once the block ends; within it, by the progress that the block gets."""
        self._watch(what, self._done, self._total)
        yield lambda done, total: self._watch(what, self._done + work * done // max(total, 1), self._total)
        self._done += work
        self._watch(what, self._done, self._total)


def work_of(bench: Workbench, specs: Sequence[PruneSpec], recipe: Recipe | None) -> int:
    """Return the work of these cuts on one draw of calibration rows."""
    if not specs:
        return 0
    scorers = {spec.scorer: scoring_work(bench, spec) for spec in specs}
    cuts = sum(cut_work(bench, spec, recipe) for spec in specs)
    return calibration_work(bench) + unit_work(bench, specs[0].structures) + sum(scorers.values()) + cuts


def calibration_work(bench: Workbench) -> int:
    """Return the work of the calibration, none if it is cached."""
    return 0 if bench.key in bench.cache else (FORWARD + BACKWARD) * len(bench.train)


def unit_work(bench: Workbench, structures: Structures) -> int:
    """Return the work of the pass that units inside heads need, none if it was taken or they stay."""
    needed = structures is Structures.UNITS and not bench.has_unit_statistics
    return (FORWARD + BACKWARD) * len(bench.train) if needed else 0


def scoring_work(bench: Workbench, spec: PruneSpec) -> int:
    """Return the work of a scorer's own pass and of its cost curves, none for what is cached."""
    scorer = scorer_named(spec.scorer)
    if spec.pattern is Pattern.STRUCTURED and bench.has_curves(scorer, spec.structures):
        return 0
    curves = CURVES if spec.pattern is Pattern.STRUCTURED else 0
    if not isinstance(scorer, Streamed) or bench.has_sums(scorer):
        return curves
    return curves + _row_work(scorer.plan, bench.base.shape.labels) * len(bench.train)


def cut_work(bench: Workbench, spec: PruneSpec, recipe: Recipe | None) -> int:
    """Return the work of one cut once its scorer has ranked: its recovery, and answering the evaluation rows."""
    recovering = 2 * FORWARD * len(bench.train) if spec.recover is Recover.SEQUENTIAL else 0
    if spec.recover is Recover.DISTILL and recipe is not None and recipe.steps is not None:
        recovering = TRAINED * recipe.steps * recipe.batch_rows
    return recovering + len(bench.evaluation)


def _row_work(plan: Plan, labels: int) -> int:
    draws = 1 if plan.noise is None else plan.noise.draws
    backwards = {Loss.NOTHING: 0, Loss.LABELS: draws, Loss.OWN: draws * labels}[plan.loss]
    return draws * FORWARD + backwards * BACKWARD
