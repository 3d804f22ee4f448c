"""Which rows a loss or a gradient that is not finite comes from, and what helps."""

from collections.abc import Sequence

from pruning.data import listed
from pruning.errors import RecoveryError
from pruning.recovery.lesson import Teaching
from pruning.recovery.student import Student


def refusal(what: str, lesson: Teaching, student: Student, chosen: Sequence[int]) -> RecoveryError:
    """Return what is said of a batch in which ``what``, a loss or a gradient, is not finite.

    Every one of the ``chosen`` rows is tried alone; they are named as counted from 1.
    """
    bad = [index for index in chosen if not student.is_taught(lesson.losses(student.model, [index]).total)]
    if 0 < len(bad) < len(chosen):
        return RecoveryError(f"{what} is not finite in rows {_named(bad)}; take them out")
    which = "any row of a batch" if bad else "a batch, though it is in each of its rows alone"
    return RecoveryError(f"{what} is not finite in {which} ({_named(chosen)}); train with a lower --learning-rate")


def _named(rows: Sequence[int]) -> str:
    return listed([row + 1 for row in rows])
