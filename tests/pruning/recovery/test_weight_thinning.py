"""Single weights that go while the student trains."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.masks.weights import unstructured_mask
from pruning.recovery.checkpoint import Checkpoints
from pruning.recovery.criteria import WEIGHT_CRITERIA
from pruning.recovery.criteria.base import Memory
from pruning.recovery.criteria.magnitude import Magnitude
from pruning.recovery.lesson import Lesson
from pruning.recovery.recipe import Criterion, Recipe
from pruning.recovery.student import Student
from pruning.recovery.thinning import cubic
from pruning.recovery.training import Progress, Trained, train
from pruning.recovery.weight_thinning import WeightThinning
from pruning.slim.convert import dense_mask, slim_layers, told_apart
from pruning.spec import Scope
from pruning.workbench import Workbench
from tests.pruning.recovery.conftest import CPU, GRADUAL, same_layers, without_time

Run = Callable[..., Trained]
SPARSITY = 0.7


def kept_shares(layers: dict[str, Tensor]) -> dict[str, float]:
    """Return the share of weights of every matrix, by slot, that are no zeros."""
    parts = {
        name: part for whole, one in layers.items() if one.ndim == 2 for name, part in told_apart(whole, one).items()
    }
    return {name: float((part != 0).double().mean()) for name, part in parts.items()}


def num_zeros(layers: dict[str, Tensor]) -> int:
    return sum(int((tensor == 0).sum()) for tensor in layers.values() if tensor.ndim == 2)


@pytest.fixture
def thin(bench: Workbench, rows: LabelledSet, tmp_path: Path) -> Run:
    """Train the dense model while weights go."""

    def run(
        recipe: Recipe = GRADUAL,
        scope: Scope = Scope.GLOBAL,
        *,
        name: str = "run",
        seen: Callable[[Student], None] = lambda student: None,
        **options: Any,
    ) -> Trained:
        class Seen(WeightThinning):
            def thinned(self, student: Student, step: int, share: float) -> Student:
                after = WeightThinning.thinned(self, student, step, share)
                seen(after)
                return after

        layers = slim_layers(bench.base, dense_mask(bench.base.shape))
        return train(
            Lesson(recipe, bench.dense_model(), rows, CPU),
            Student(bench.base, layers, recipe, device=CPU),
            range(100),
            range(100, 120),
            Checkpoints(tmp_path, name),
            thinning=Seen(recipe, WEIGHT_CRITERIA[recipe.criterion], SPARSITY, scope),
            **options,
        )

    return run


@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
def test_exactly_the_share_is_gone_at_the_end(thin: Run, bench: Workbench, criterion: Criterion) -> None:
    layers = thin(replace(GRADUAL, criterion=criterion)).layers
    prunable = bench.base.shape.prunable_weights
    assert num_zeros(layers) == prunable - round((1 - SPARSITY) * prunable)


@pytest.mark.parametrize("scope", [Scope.LAYERWISE, Scope.ROW])
def test_within_a_scope_each_part_keeps_its_share(thin: Run, scope: Scope) -> None:
    layers = thin(replace(GRADUAL, criterion=Criterion.MAGNITUDE), scope).layers
    shares = kept_shares(layers)
    assert len(shares) == 12 and all(share == pytest.approx(1 - SPARSITY, abs=0.02) for share in shares.values())


def test_a_student_that_hardly_moves_ends_with_the_mask_of_the_cut_at_once(thin: Run, bench: Workbench) -> None:
    still = replace(GRADUAL, criterion=Criterion.MAGNITUDE, learning_rate=1e-12)
    weights = bench.base.prunable_weights()
    mask = unstructured_mask({name: weight.abs() for name, weight in weights.items()}, SPARSITY)
    for whole, tensor in thin(still).layers.items():
        if tensor.ndim == 2:
            assert all(torch.equal(part != 0, mask[name]) for name, part in told_apart(whole, tensor).items())


def test_the_sparsity_follows_the_schedule(thin: Run, bench: Workbench) -> None:
    zeros: list[int] = []
    recipe = replace(GRADUAL, criterion=Criterion.MAGNITUDE, gradual=0.8, gradual_from=0.2)
    thin(recipe, seen=lambda student: zeros.append(num_zeros(student.layers())))
    prunable = bench.base.shape.prunable_weights
    over = [min(1.0, max(0.0, (step / 10 - 0.2) / 0.6)) for step in range(1, 11)]
    expected = [prunable - round((1 - cubic(one) * SPARSITY) * prunable) for one in over]
    assert zeros == pytest.approx(expected, abs=1) and zeros[1] == 0 and zeros[2] > 0


@pytest.mark.parametrize("criterion", [name for name, one in WEIGHT_CRITERIA.items() if not one.regrows])
def test_what_is_gone_never_comes_back(thin: Run, criterion: Criterion) -> None:
    gone: list[dict[str, Tensor]] = []

    def note(student: Student) -> None:
        now = {name: matrix.detach() == 0 for name, matrix in student.matrices.items()}
        assert not gone or all((now[name] | ~before).all() for name, before in gone[-1].items())
        gone.append(now)

    thin(replace(GRADUAL, criterion=criterion, learning_rate=1e-2, weight_decay=0.1), seen=note)
    assert len(gone) == GRADUAL.steps


def test_nothing_comes_back_even_if_the_criterion_changes_its_mind(base: BaseModel) -> None:
    class Fickle(Magnitude):
        def scores(self, memory: Memory, matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: torch.rand(matrix.shape, generator=generator) for name, matrix in matrices.items()}

    generator = torch.Generator().manual_seed(0)
    student = Student(base, slim_layers(base, dense_mask(base.shape)), Recipe(steps=1), device=CPU)
    student.learn(torch.cat([parameter.flatten() for parameter in student.parameters.values()]).sum(), 1e-3)
    thinning = WeightThinning(GRADUAL, Fickle(), SPARSITY)
    for step in (5, 10):
        before, student = student.kept, thinning.thinned(student, step, step / 10)
        assert all((before[name] | ~kept).all() for name, kept in student.kept.items() if before)
    assert thinning.is_over(student)
    assert num_zeros(student.layers()) == base.shape.prunable_weights - round(0.3 * base.shape.prunable_weights)


def test_by_platon_weights_come_back_before_the_end_and_none_after(thin: Run) -> None:
    kept: list[dict[str, Tensor]] = []

    def note(student: Student) -> None:
        kept.append({name: matrix.detach() != 0 for name, matrix in student.matrices.items()})

    recipe = replace(GRADUAL, criterion=Criterion.PLATON, learning_rate=3e-2, steps=32, gradual=0.75, cut_every=3)
    trained = thin(recipe, seen=note)
    cuts, locked, end = kept[2:24:3], kept[23], kept[-1]
    assert any((after[name] & ~before[name]).any() for before, after in pairwise(cuts) for name in before)
    assert all(torch.equal(locked[name], end[name]) for name in locked)
    assert all(torch.equal(trained.layers[name] != 0, mask) for name, mask in end.items())


def test_a_denser_student_is_never_the_best_and_patience_begins_with_the_last_cut(thin: Run) -> None:
    recipe = replace(GRADUAL, criterion=Criterion.PLATON, patience=1, learning_rate=1e-12, gradual=0.7, check_every=2)
    trained = thin(recipe)
    assert trained.standing.best_step >= 8
    assert num_zeros(trained.layers) > 0


@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
@pytest.mark.parametrize("step", [5, 9])
def test_a_run_that_was_killed_and_resumed_equals_one_that_was_not(thin: Run, criterion: Criterion, step: int) -> None:
    def kill(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    recipe = replace(GRADUAL, criterion=criterion, gradual=0.6, cut_every=2, check_every=1)
    whole = thin(recipe, name="whole")
    with pytest.raises(KeyboardInterrupt):
        thin(recipe, name="killed", report=kill)
    for other in (thin(recipe, name="killed", resume=True), thin(recipe, name="again")):
        assert same_layers(whole, other)
        assert without_time(whole) == without_time(other)


@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
def test_fine_tuning_with_labels_alone_works_as_the_papers_do_it(thin: Run, criterion: Criterion) -> None:
    recipe = replace(GRADUAL, criterion=criterion, label_weight=1.0, hidden_weight=0.0)
    alone = thin(recipe, name="alone").layers
    assert num_zeros(alone) > 0 and all(tensor.isfinite().all() for tensor in alone.values())


def test_scores_come_from_the_labels_whatever_is_trained_on(thin: Run) -> None:
    """At a rate of almost zero the student is the same, and so is what its labels' loss says of it."""
    still = replace(GRADUAL, criterion=Criterion.SEVEN_DYNAMIC, learning_rate=1e-12)
    masks = [
        {name: tensor != 0 for name, tensor in thin(recipe, name=str(index)).layers.items()}
        for index, recipe in enumerate((still, replace(still, label_weight=1.0, hidden_weight=0.0)))
    ]
    different = sum(int((masks[0][name] ^ masks[1][name]).sum()) for name in masks[0])
    assert different <= 0.001 * sum(mask.numel() for mask in masks[0].values())


def test_masking_a_student_makes_its_optimizer_forget_unless_weights_may_come_back(base: BaseModel) -> None:
    student = Student(base, slim_layers(base, dense_mask(base.shape)), Recipe(steps=1), device=CPU)
    student.learn(torch.cat([parameter.flatten() for parameter in student.parameters.values()]).sum(), 1e-3)
    generator = torch.Generator().manual_seed(0)
    mask = {name: torch.rand(matrix.shape, generator=generator) < 0.5 for name, matrix in student.matrices.items()}
    for locked in (True, False):
        state = student.masked(mask, 1, locked=locked).state()
        for name, kept in mask.items():
            assert not state[f"weight.{name}"][~kept].any()
            assert bool(state[f"mean.{name}"][~kept].any()) is not locked
            assert bool(state[f"square.{name}"][kept].any())
