"""The laws of a run: what it depends on, how it goes on after it was killed, what it refuses."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import pruning.memory
import pruning.recovery.checkpoint
import pruning.recovery.lesson
from pruning.data import LabelledSet
from pruning.errors import HostMemoryError, RecoveryError
from pruning.pipeline import cut
from pruning.prediction import predict_logits
from pruning.recovery.checkpoint import Checkpoints
from pruning.recovery.crew import Crew
from pruning.recovery.recipe import Recipe
from pruning.recovery.schedule import learning_rate_at
from pruning.recovery.student import Student
from pruning.recovery.training import Progress
from pruning.slim.convert import build_slim
from pruning.spec import PruneSpec
from pruning.workbench import Workbench
from tests.pruning.recovery.conftest import HALF, SHORT, ZEROS, Train, same_layers, without_time


class Killed(BaseException):
    """As sudden as a signal."""


def kill_after(step: int) -> Train:
    def report(progress: Progress) -> None:
        if progress.step == step:
            raise Killed

    return report  # type: ignore[return-value]


def test_the_same_recipe_trains_the_same_weights_bit_for_bit(run: Train) -> None:
    one, other = run(name="one"), run(name="other")
    assert same_layers(one, other)
    assert without_time(one) == without_time(other)
    assert not same_layers(one, run(replace(SHORT, seed=1), name="third"))


@pytest.mark.parametrize("spec", [HALF, ZEROS], ids=["structured", "unstructured"])
@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_run_that_was_killed_and_resumed_equals_one_that_was_not(run: Train, spec: PruneSpec, step: int) -> None:
    whole = run(spec=spec, name="whole")
    with pytest.raises(Killed):
        run(spec=spec, name="killed", report=kill_after(step))
    resumed = run(spec=spec, name="killed", resume=True)
    assert same_layers(whole, resumed)
    assert without_time(whole) == without_time(resumed)


def test_a_run_that_was_killed_between_checkpoints_leaves_the_last_one_whole(run: Train, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(report=kill_after(5))
    assert Checkpoints(tmp_path, "run").newest()[0].step == 4
    assert [path.name for path in (tmp_path / "recovering" / "run").iterdir()] == ["00000004"]


def test_zeros_of_an_unstructured_cut_stay_zeros(run: Train, bench: Workbench) -> None:
    before, _, _ = cut(bench, ZEROS)
    after = run(spec=ZEROS).layers
    for name, tensor in before.items():
        if tensor.ndim == 2:
            assert torch.equal(after[name] != 0, tensor != 0)


def test_training_brings_the_student_closer_to_its_teacher(run: Train, bench: Workbench, rows: LabelledSet) -> None:
    before, _, _ = cut(bench, ZEROS)
    after = run(replace(SHORT, steps=60, check_every=20, learning_rate=3e-3), ZEROS).layers
    target = predict_logits(bench.dense_model(), rows.sequences)
    errors = [
        float((predict_logits(build_slim(bench.base, layers), rows.sequences) - target).square().mean())
        for layers in (before, after)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_the_best_held_out_score_is_returned_and_never_one_below_the_cut(run: Train, bench: Workbench) -> None:
    before, _, _ = cut(bench, HALF.before_training())
    ruined = run(replace(SHORT, learning_rate=10.0, steps=4))
    assert ruined.standing.best_score >= ruined.standing.first_score
    if ruined.standing.best_step == 0:
        assert all(torch.equal(ruined.layers[name], before[name]) for name in before)


def test_a_run_stops_when_its_score_stands_still(run: Train) -> None:
    # A rate so small that no answer changes.
    stopped = run(replace(SHORT, steps=100, check_every=1, patience=3, learning_rate=1e-12))
    assert stopped.standing.step == 13  # of the steps from 10 on, since before the rate rises
    assert stopped.standing.best_step == 13


def test_a_run_that_lost_at_first_does_not_stop_while_it_gains(run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.9, 0.8, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.88, 0.7, 0.6])
    monkeypatch.setattr(pruning.recovery.lesson.Lesson, "score", lambda *_: next(scores))
    stopped = run(replace(SHORT, steps=20, check_every=1, patience=2)).standing
    assert (stopped.step, stopped.score) == (11, 0.6)
    assert (stopped.best_step, stopped.best_score, stopped.reached) == (0, 0.9, 0.88)


def test_minutes_end_a_run_and_time_before_a_kill_counts(run: Train) -> None:
    ticks: Iterator[float] = itertools.count(0.0, 1.0)
    recipe = replace(SHORT, steps=None, minutes=0.2, check_every=1)
    with pytest.raises(Killed):
        run(recipe, report=kill_after(3), clock=lambda: next(ticks))
    later: Iterator[float] = itertools.count(1e6, 1.0)
    ended = run(recipe, resume=True, clock=lambda: next(later)).standing
    assert 12.0 <= ended.seconds < 15.0
    assert ended.step > 3


def test_every_step_takes_the_rate_of_its_middle(run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    learn = Student.learn

    def noted(student: Student, loss: Tensor, learning_rate: float, crew: Crew) -> None:
        rates.append(learning_rate)
        learn(student, loss, learning_rate, crew)

    monkeypatch.setattr(Student, "learn", noted)
    run()
    assert rates == pytest.approx([learning_rate_at(SHORT, (step + 0.5) / 6) for step in range(6)])


def test_progress_is_told_after_every_step(run: Train) -> None:
    told: list[Progress] = []
    run(report=told.append)
    assert [progress.step for progress in told] == [1, 2, 3, 4, 5, 6]
    assert told[-1].share == 1.0 and told[-1].seconds_left == 0.0
    assert all(progress.loss > 0 and 0 <= progress.score <= 1 for progress in told)


@pytest.mark.parametrize(
    ("in_gradient", "what"), [(False, "the loss"), (True, "the gradient of layers.1.ffn_norm.bias")]
)
def test_rows_without_a_finite_loss_or_gradient_are_named(
    run: Train, rows: LabelledSet, monkeypatch: pytest.MonkeyPatch, in_gradient: bool, what: str
) -> None:
    real = pruning.recovery.lesson.outputs_of

    def broken(model, batch, tap=None):  # type: ignore[no-untyped-def]
        logits, hidden = real(model, batch, tap)
        nan_B1 = torch.where(batch.ids_T[batch.first_B + 1] == 5, float("nan"), 1.0)[:, None]
        if not in_gradient:
            return logits * nan_B1, hidden
        if logits.requires_grad:
            logits.register_hook(lambda gradient: gradient * nan_B1.to(gradient.dtype))
        return logits, hidden

    monkeypatch.setattr(pruning.recovery.lesson, "outputs_of", broken)
    bad = [index for index in range(100) if rows.sequences[index].ids[1] == 5]
    assert 0 < len(bad) < 100
    with pytest.raises(RecoveryError, match=rf"{what} is not finite in rows [\d, ]+; take them out") as refusal:
        run()
    named = {int(word) - 1 for word in str(refusal.value).split("rows ")[1].split(";")[0].split(", ")}
    assert named and named <= set(bad)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_a_want_of_memory_while_a_checkpoint_is_written_leaves_the_one_before(
    run: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real, written = pruning.recovery.checkpoint.save_file, 0

    def save(tensors, path):  # type: ignore[no-untyped-def]
        nonlocal written
        written += 1
        real(tensors, path)
        if written == 2:
            raise error

    monkeypatch.setattr(pruning.recovery.checkpoint, "save_file", save)
    with pytest.raises(type(error)):
        run()
    assert Checkpoints(tmp_path, "run").newest()[0].step == 2
    assert [path.name for path in (tmp_path / "recovering" / "run").iterdir()] == ["00000002"]


def test_a_training_that_would_not_fit_is_refused_before_it_begins(
    run: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning.memory, "available_bytes", lambda: 100_000)
    words = r"training with 8 rows a step needs about \d+ bytes .* train with fewer --batch-rows, leave out the longest"
    with pytest.raises(HostMemoryError, match=words):
        run(spec=ZEROS)  # a cut that needs no pass of its own
    assert not (tmp_path / "recovering").exists()


def test_a_diverging_run_is_refused_with_what_helps(run: Train) -> None:
    with pytest.raises(RecoveryError, match="lower --learning-rate"):
        run(Recipe(steps=50, batch_rows=8, check_every=50, learning_rate=1e30, weight_decay=0.0))


def test_held_out_rows_give_no_gradient(run: Train, tmp_path: Path) -> None:
    run(name="one")
    run(name="other", held_out=range(105, 115))
    one, other = (Checkpoints(tmp_path, name).newest()[1] for name in ("one", "other"))
    assert all(torch.equal(one[name], other[name]) for name in one)
