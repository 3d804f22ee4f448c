import torch

from pruning.encoder import BaseModel
from pruning.scores import Fisher
from tests.pruning.parts import random_calibration


def test_a_head_scores_the_mean_of_its_squared_mask_gradients(base: BaseModel) -> None:
    calibration = random_calibration(base, micro_batches=5)
    scores = Fisher().structures(base, calibration)
    squares = [float(gradient) ** 2 for gradient in calibration.head_gradients_MLN[:, 1, 2]]
    torch.testing.assert_close(scores.heads_LN[1, 2], torch.tensor(sum(squares) / 5), rtol=1e-6, atol=0)


def test_a_neuron_scores_the_mean_of_its_squared_mask_gradients(base: BaseModel) -> None:
    calibration = random_calibration(base, micro_batches=5)
    scores = Fisher().structures(base, calibration)
    squares = [float(gradient) ** 2 for gradient in calibration.neuron_gradients_MLF[:, 0, 63]]
    torch.testing.assert_close(scores.neurons_LF[0, 63], torch.tensor(sum(squares) / 5), rtol=1e-6, atol=0)


def test_a_weight_scores_its_square_times_its_mean_squared_gradient(base: BaseModel) -> None:
    calibration = random_calibration(base)
    scores = Fisher().weights(base, calibration)
    assert set(scores) == set(base.prunable_weights())
    for name, square in calibration.weight_gradient_squares().items():
        torch.testing.assert_close(scores[name], base.tensors[name] ** 2 * square, rtol=1e-6, atol=0)


def test_the_sign_of_a_gradient_does_not_matter(base: BaseModel) -> None:
    calibration = random_calibration(base)
    before = Fisher().structures(base, calibration).neurons_LF
    calibration.neuron_gradients_MLF[0].neg_()
    assert torch.equal(Fisher().structures(base, calibration).neurons_LF, before)


def test_the_order_of_the_micro_batches_does_not_matter(base: BaseModel) -> None:
    calibration = random_calibration(base)
    before = Fisher().structures(base, calibration).heads_LN
    calibration.head_gradients_MLN.copy_(calibration.head_gradients_MLN.flip(0))
    torch.testing.assert_close(Fisher().structures(base, calibration).heads_LN, before, rtol=1e-6, atol=0)
