"""How much of a comparison is left, so that the time left can be told.

Work counts rows that a cut model answers. What else is done is weighed by what it took of a processor's time on the
embedded model: an estimate, for a bar.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pruning.capture import Progress
from pruning.scores import Scorer, Streamed
from pruning.spec import Pattern
from pruning.weight_pass import Loss, Plan
from pruning.workbench import Workbench

Watch = Callable[[str, int, int], None]
"""Called with (what is being computed, work done, work in all)."""

FORWARD, BACKWARD = 4, 11
"""A row that passes through a watched dense model, and back through it."""
CURVES = 3000
"""The cost curves of a scorer."""


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


def work_of(bench: Workbench, pattern: Pattern, scorers: Sequence[Scorer], cells: int) -> int:
    """Return the work of ``cells`` cuts by ``scorers`` on one draw of calibration rows."""
    if not cells:
        return 0
    scoring = sum(scoring_work(bench, pattern, scorer) for scorer in scorers)
    return calibration_work(bench) + scoring + cells * judging_work(bench)


def calibration_work(bench: Workbench) -> int:
    """Return the work of the calibration, none if it is cached."""
    return 0 if bench.key in bench.cache else (FORWARD + BACKWARD) * len(bench.train)


def scoring_work(bench: Workbench, pattern: Pattern, scorer: Scorer) -> int:
    """Return the work of a scorer's own pass and of its cost curves, none for what is cached."""
    if pattern is Pattern.STRUCTURED and bench.has_curves(scorer):
        return 0
    curves = CURVES if pattern is Pattern.STRUCTURED else 0
    if not isinstance(scorer, Streamed) or bench.has_sums(scorer):
        return curves
    return curves + _row_work(scorer.plan, bench.base.shape.labels) * len(bench.train)


def judging_work(bench: Workbench) -> int:
    """Return the work of answering the evaluation rows."""
    return len(bench.evaluation)


def _row_work(plan: Plan, labels: int) -> int:
    draws = 1 if plan.noise is None else plan.noise.draws
    backwards = {Loss.NOTHING: 0, Loss.LABELS: draws, Loss.OWN: draws * labels}[plan.loss]
    return draws * FORWARD + backwards * BACKWARD
