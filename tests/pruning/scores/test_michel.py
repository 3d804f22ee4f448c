import torch

from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.scores import Michel
from tests.pruning.parts import random_calibration, readings_of, scored, with_sums


def test_a_head_scores_its_mean_gradient_size_over_the_norm_of_its_layer(base: BaseModel) -> None:
    calibration = random_calibration(base, micro_batches=5)
    sizes_N = calibration.head_gradients_MLN[:, 1].abs().mean(0)
    scores = Michel().structures(base, calibration)
    torch.testing.assert_close(scores.heads_LN[1], sizes_N / sizes_N.square().sum().sqrt())
    torch.testing.assert_close(scores.neurons_LF.norm(dim=1), torch.ones(2))


def test_gradients_that_cancel_over_the_rows_still_score(base: BaseModel) -> None:
    calibration = random_calibration(base, micro_batches=2)
    calibration.head_gradients_MLN[1] = -calibration.head_gradients_MLN[0]
    assert (Michel().structures(base, calibration).heads_LN > 0).all()


def test_a_layer_without_any_gradient_scores_zero(base: BaseModel) -> None:
    calibration = random_calibration(base)
    calibration.head_gradients_MLN[:, 0] = 0.0
    assert (Michel().structures(base, calibration).heads_LN[0] == 0).all()


def test_a_weight_scores_its_mean_gradient_size_over_the_norm_of_its_tensor(
    base: BaseModel, train: LabelledSet
) -> None:
    sums = scored(base, train, Michel())
    scores = Michel().weights(base, with_sums(random_calibration(base), sums))
    readings = readings_of(base, train)
    for name, weight in base.prunable_weights().items():
        size = sum(((weight * reading.gradients[name]).abs() for reading in readings), torch.zeros(()))
        torch.testing.assert_close(scores[name], size / size.square().sum().sqrt(), rtol=1e-4, atol=1e-8)
