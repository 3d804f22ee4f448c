import pytest
import torch

from pruning.scores.seven import SevenSums
from tests.pruning.parts import gradients_reading


def test_three_steps_by_hand() -> None:
    sums = SevenSums({"w": torch.tensor([[2.0]])})
    for gradient in (1.0, -3.0, 0.0):
        sums.add(gradients_reading({"w": torch.tensor([[gradient]])}))
    # step 1: m = 0.2, v = 0.1; unbiased 1 and 1
    first = 2 * 1 * 1.0 / 1.0
    # step 2: m = 0.8 * 0.2 + 0.2 * 3 = 0.76, over 1 - 0.64; v = 0.9 * 0.1 + 0.1 * 9 = 0.99, over 1 - 0.81
    second = 2 * 3 * (0.76 / 0.36) / (0.99 / 0.19) ** 0.5
    # step 3: no gradient, no score
    assert float(sums.finish()["w"]) == pytest.approx(first + second, rel=1e-5)


def test_a_steady_gradient_scores_its_full_size_and_a_noisy_one_less() -> None:
    sums = SevenSums({"w": torch.tensor([[1.0, 1.0]])})
    for step in range(50):
        sums.add(gradients_reading({"w": torch.tensor([[1.0, 10.0 if step % 10 == 0 else 0.0]])}))
    steady, noisy = sums.finish()["w"][0].tolist()
    assert steady == pytest.approx(50, rel=1e-4)
    assert noisy < steady


def test_a_weight_that_never_has_a_gradient_scores_nothing() -> None:
    sums = SevenSums({"w": torch.tensor([[5.0]])})
    sums.add(gradients_reading({"w": torch.tensor([[0.0]])}))
    assert float(sums.finish()["w"]) == 0.0
