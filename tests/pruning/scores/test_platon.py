import pytest
import torch

from pruning.scores.platon import PlatonSums
from tests.pruning.parts import gradients_reading


def test_two_steps_by_hand() -> None:
    sums = PlatonSums({"w": torch.tensor([[2.0]])})
    for gradient in (1.0, -3.0):
        sums.add(gradients_reading({"w": torch.tensor([[gradient]])}))
    # I = 2: I- = 0.15 * 2 = 0.3, U- = 0.1 * (2 - 0.3) = 0.17
    # I = 6: I- = 0.85 * 0.3 + 0.15 * 6 = 1.155, U- = 0.9 * 0.17 + 0.1 * (6 - 1.155) = 0.6375
    assert float(sums.finish()["w"]) == pytest.approx(1.155 * 0.6375, rel=1e-5)


def test_of_equal_sensitivity_the_noisier_weight_scores_more() -> None:
    sums = PlatonSums({"w": torch.tensor([[1.0, 1.0]])})
    for step in range(100):
        sums.add(gradients_reading({"w": torch.tensor([[1.0, 2.0 * (step % 2)]])}))
    steady, noisy = sums.finish()["w"][0].tolist()
    assert noisy > 2 * steady
