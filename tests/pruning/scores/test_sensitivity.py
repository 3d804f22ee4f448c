from dataclasses import replace

import torch

from pruning.encoder import BaseModel
from pruning.masks.weights import unstructured_mask
from pruning.scores import Magnitude, Sensitivity
from pruning.spec import Scope
from tests.pruning.parts import random_calibration


def test_a_weight_scores_its_square_times_the_mean_squared_gradient_of_its_tensor(base: BaseModel) -> None:
    calibration = random_calibration(base)
    scores = Sensitivity().weights(base, calibration)
    for name, square in calibration.weight_gradient_squares().items():
        torch.testing.assert_close(scores[name], base.tensors[name] ** 2 * square.mean())


def test_within_a_tensor_the_order_is_that_of_magnitude(base: BaseModel) -> None:
    calibration = random_calibration(base)
    one, other = (
        unstructured_mask(scorer.weights(base, calibration), 0.6, Scope.LAYERWISE)
        for scorer in (Sensitivity(), Magnitude())
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_more_sensitive_tensor_keeps_more(base: BaseModel) -> None:
    calibration = random_calibration(base)
    name = "layers.0.ffn_in.weight"
    loud = calibration.load_weight_gradients() | {f"square.{name}": torch.full((64, 32), 100.0)}
    before, after = (
        unstructured_mask(Sensitivity().weights(base, each), 0.5)[name].sum()
        for each in (calibration, replace(calibration, load_weight_gradients=lambda: loud))
    )
    assert after > before
