import pytest
import torch
from torch import Tensor

from pruning.recovery.loss import distillation_loss, hidden_state_loss
from pruning.recovery.recipe import Recipe

SOFT, TASK, HIDDEN = torch.tensor(0.5), torch.tensor(0.7), torch.tensor(0.25)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    hidden = [normal(9, 8), normal(4, 8, seed=1)]
    assert float(hidden_state_loss(hidden, hidden)) == 0.0


def test_each_layer_counts_by_its_relative_error() -> None:
    target = [normal(9, 8), normal(4, 8, seed=1)]
    off = [target[0] + 0.5 * target[0].flip(0), target[1] + 0.1 * target[1].flip(0)]
    once = hidden_state_loss(off, target)
    torch.testing.assert_close(hidden_state_loss([off[0] * 7, off[1]], [target[0] * 7, target[1]]), once)
    assert float(once) == pytest.approx((0.25 + 0.01) / 2)


@pytest.mark.parametrize(
    ("label_weight", "hidden_weight", "expected"),
    [(0.0, 0.0, 0.5), (1.0, 0.0, 0.7), (0.25, 0.0, 0.55), (0.0, 2.0, 1.0), (0.25, 2.0, 1.05)],
)
def test_the_weights_share_out_what_is_made_small(label_weight: float, hidden_weight: float, expected: float) -> None:
    recipe = Recipe(steps=1, label_weight=label_weight, hidden_weight=hidden_weight)
    assert float(distillation_loss(recipe, soft=SOFT, task=TASK, hidden=HIDDEN)) == pytest.approx(expected)


def test_a_part_without_weight_cannot_spoil_the_rest() -> None:
    nan = torch.tensor(float("nan"))
    loss = distillation_loss(Recipe(steps=1, hidden_weight=0.0), soft=SOFT, task=nan, hidden=nan)
    assert float(loss) == 0.5
