"""The loop: batches in, a better student out."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pruning.errors import RecoveryError
from pruning.memory import require_memory, training_bytes
from pruning.recovery.blame import refusal
from pruning.recovery.checkpoint import Checkpoints, Standing
from pruning.recovery.lesson import Teaching
from pruning.recovery.rows import Batches
from pruning.recovery.schedule import learning_rate_at, progress_of
from pruning.recovery.student import GradientError, Student
from pruning.recovery.thinning import AnyThinning

SMOOTHING = 0.95
"""Share of the loss shown that comes from earlier steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What may be shown after every step."""

    step: int
    share: float
    """Of the run that is over, in [0, 1]."""
    loss: float
    """Mean over the last steps."""
    score: float
    """Of the held-out rows by the task's metric, when they were scored last."""
    seconds_left: float


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a run."""

    layers: dict[str, Tensor]
    """Of the step whose score was best."""
    standing: Standing
    """At the end."""


def train(
    lesson: Teaching,
    student: Student,
    trained: Sequence[int],
    held_out: Sequence[int],
    checkpoints: Checkpoints,
    *,
    thinning: AnyThinning | None = None,
    resume: bool = False,
    report: Report = lambda progress: None,
    clock: Callable[[], float] = time.monotonic,
) -> Trained:
    """Train until steps or minutes are over, or the held-out score stands still; return the best layers.

    Everything that a step depends on is in the checkpoint or a function of its number, so that a run that was killed
    and resumed is the run that was not. Several workers train by calling it together: worker 0 scores, writes and says
    what time it is, and all of them end with the same step and the same layers.

    Args:
        lesson: rows, teacher and recipe, and the crew whose worker this is.
        student: what is trained; where ``thinning`` is given, it is not cut yet.
        trained: rows to train on.
        held_out: rows to score while it goes.
        checkpoints: where they are kept.
        thinning: how weights, or whole heads and neurons, go meanwhile.
        resume: go on from the newest checkpoint.
        report: called after every step.
        clock: seconds.

    Raises:
        RecoveryError, CacheError: a loss or a gradient is not finite (its rows are named, and of a gradient the
            uppermost parameter that has it), the checkpoint cannot be used, or a worker is gone.
        StoreError: no checkpoint can be written.
        HostMemoryError: on a CPU, it would not fit into the memory of this machine.
    """
    recipe, crew = lesson.recipe, lesson.crew
    lengths = [len(lesson.sequences[index].ids) for index in trained]
    if student.device.type == "cpu":
        _require_memory(student, lengths, -(-recipe.batch_rows // crew.size), thins=thinning is not None)
    batches = Batches(lengths, recipe.batch_rows, recipe.seed)
    if resume:
        standing, state, best = checkpoints.newest()
        if standing.step != crew.agreed(standing.step):
            raise RecoveryError("the workers see different checkpoints; give them one store, on a shared file system")
        student = student.with_layers(best, state, standing.step)
        if thinning:
            thinning.restore(state, student.device)
    else:
        standing, best = _at_the_start(_score(lesson, student, held_out)), student.layers()
    started, loss = clock() - standing.seconds, float("nan")
    share = progress_of(recipe, standing.step, standing.seconds)
    while share < 1.0 and (standing.without_gain < recipe.patience or _thins(thinning, student)):
        batch, share_of_it = (
            [trained[index] for index in rows]
            for rows in (batches.at(standing.step), batches.at(standing.step, crew.rank, crew.size))
        )
        # The middle of the step: neither the first nor the last one is wasted on a rate of zero.
        rate = learning_rate_at(recipe, progress_of(recipe, standing.step + 0.5, standing.seconds))
        this = _learn(lesson, student, batch, share_of_it, rate, thinning)
        loss = this if loss != loss else SMOOTHING * loss + (1.0 - SMOOTHING) * this
        standing = replace(standing, step=standing.step + 1, seconds=crew.agreed(clock() - started))
        share = progress_of(recipe, standing.step, standing.seconds)
        if thinning:
            thinner = thinning.thinned(student, standing.step, share)
            if thinner is not student:  # no better one can be expected at once
                student, standing = thinner, replace(standing, without_gain=0)
        if standing.step % recipe.check_every == 0 or share == 1.0:
            score, rising = _score(lesson, student, held_out), share < recipe.warm_up
            standing = _scored(standing, score, comparable=student.fits(best), rising=rising)
            if standing.best_step == standing.step:
                best = student.layers()
            standing = replace(standing, seconds=crew.agreed(clock() - started))
            if crew.rank == 0:
                checkpoints.put(standing, student.state() | (thinning.state() if thinning else {}), best)
        left = standing.seconds * (1.0 - share) / share
        report(Progress(step=standing.step, share=share, loss=loss, score=standing.score, seconds_left=left))
    return Trained(best, standing)


def _require_memory(student: Student, lengths: Sequence[int], batch_rows: int, *, thins: bool) -> None:
    """Refuse a training that would not fit, of ``batch_rows`` a step in this process."""
    needed = training_bytes(student.shape, *student.counts(), lengths, batch_rows, thins=thins)
    what = f"training with {batch_rows} rows a step"
    require_memory(needed, what, max(lengths), first="train with fewer --batch-rows, ")


def _learn(
    lesson: Teaching,
    student: Student,
    batch: Sequence[int],
    mine: Sequence[int],
    learning_rate: float,
    thinning: AnyThinning | None,
) -> float:
    """Take one step on the rows of a ``batch``, of which this worker computes ``mine``; return their loss before it.

    Raises:
        RecoveryError: the loss or its gradient is not finite.
    """
    if thinning and _thins(thinning, student):
        watch = thinning.watch(student)
        losses = lesson.losses(student.model, mine, watch.tap)
        thinning.observe(student, watch, losses.task, lesson.crew)
    else:
        losses = lesson.losses(student.model, mine)
    (total,) = lesson.crew.total([losses.total.detach()])
    alone = lesson.alone()  # every worker tries the whole batch, and all say the same
    if not torch.isfinite(total):
        raise refusal("the loss", alone, student, batch)
    try:
        student.learn(losses.total, learning_rate, lesson.crew)
    except GradientError as error:
        raise refusal(str(error), alone, student, batch) from error
    return total.item()


def _thins(thinning: AnyThinning | None, student: Student) -> bool:
    """Tell whether something still goes."""
    return thinning is not None and not thinning.is_over(student)


def _at_the_start(score: float) -> Standing:
    return Standing(
        step=0,
        seconds=0.0,
        score=score,
        first_score=score,
        best_score=score,
        best_step=0,
        reached=None,
        without_gain=0,
    )


def _scored(standing: Standing, score: float, *, comparable: bool, rising: bool) -> Standing:
    """Take note of a score; of equals the later one is the best, and of denser layers the later one too.

    A gain is told from what was reached since the learning rate fell. A good cut loses at first, while the rate is
    ``rising``, and takes long to be better than it began: it does not stand still meanwhile.
    """
    gained = standing.reached is None or not comparable or score > standing.reached
    standing = replace(
        standing,
        score=score,
        reached=None if rising else score if gained else standing.reached,
        without_gain=0 if gained else standing.without_gain + 1,
    )
    if not comparable or score >= standing.best_score:
        standing = replace(standing, best_score=score, best_step=standing.step)
    return standing


def _score(lesson: Teaching, student: Student, held_out: Sequence[int]) -> float:
    """Return how well the student does on the held-out rows, as worker 0 finds."""
    crew = lesson.crew
    return crew.agreed(math.nan if crew.rank else lesson.score(student.model, held_out))
