import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pruning.recovery.loss import distillation_loss, hidden_state_loss, soft_label_loss
from pruning.recovery.recipe import Recipe

T = 2.0


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    outputs = normal(4, 3), [normal(9, 8), normal(4, 8, seed=1)]
    assert float(distillation_loss(Recipe(steps=1), outputs, outputs, torch.tensor(9.0))) == 0.0


def test_soft_labels_have_the_gradient_of_the_soft_cross_entropy() -> None:
    logits, target = normal(4, 3).requires_grad_(True), normal(4, 3, seed=1)
    (ours,) = torch.autograd.grad(soft_label_loss(logits, target, T), logits)
    entropy = functional.cross_entropy(logits / T, torch.softmax(target / T, 1))
    (theirs,) = torch.autograd.grad(T**2 * entropy, logits)
    torch.testing.assert_close(ours, theirs)


def test_each_layer_counts_by_its_relative_error() -> None:
    target = [normal(9, 8), normal(4, 8, seed=1)]
    off = [state + 0.5 * state.flip(0) for state in target]
    once = hidden_state_loss(off, target)
    torch.testing.assert_close(hidden_state_loss([off[0] * 7, off[1]], [target[0] * 7, target[1]]), once)
    assert float(once) == pytest.approx(0.25)


def test_hard_labels_alone_are_the_loss_of_the_task() -> None:
    recipe = Recipe(steps=1, label_weight=1.0, hidden_weight=0.0)
    task = torch.tensor(0.7)
    loss = distillation_loss(recipe, (normal(4, 3), []), (normal(4, 3, seed=1), []), task)
    torch.testing.assert_close(loss, task)
