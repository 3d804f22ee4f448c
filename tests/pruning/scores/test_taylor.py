import torch

from pruning.encoder import BaseModel
from pruning.scores import Taylor
from tests.pruning.parts import random_calibration


def test_a_head_scores_the_size_of_its_mean_mask_gradient(base: BaseModel) -> None:
    calibration = random_calibration(base, micro_batches=5)
    scores = Taylor().structures(base, calibration)
    expected = abs(sum(float(gradient) for gradient in calibration.head_gradients_MLN[:, 1, 2]) / 5)
    torch.testing.assert_close(scores.heads_LN[1, 2], torch.tensor(expected), rtol=1e-5, atol=0)


def test_a_neuron_scores_the_size_of_its_mean_mask_gradient(base: BaseModel) -> None:
    calibration = random_calibration(base, micro_batches=5)
    scores = Taylor().structures(base, calibration)
    expected = abs(sum(float(gradient) for gradient in calibration.neuron_gradients_MLF[:, 0, 63]) / 5)
    torch.testing.assert_close(scores.neurons_LF[0, 63], torch.tensor(expected), rtol=1e-5, atol=0)


def test_gradients_that_cancel_over_the_rows_leave_no_score(base: BaseModel) -> None:
    calibration = random_calibration(base, micro_batches=2)
    calibration.head_gradients_MLN[1] = -calibration.head_gradients_MLN[0]
    assert (Taylor().structures(base, calibration).heads_LN == 0).all()


def test_a_weight_scores_the_size_of_itself_times_its_mean_gradient(base: BaseModel) -> None:
    calibration = random_calibration(base)
    scores = Taylor().weights(base, calibration)
    assert set(scores) == set(base.prunable_weights())
    for name, mean in calibration.weight_gradient_means().items():
        torch.testing.assert_close(scores[name], (base.tensors[name] * mean).abs(), rtol=1e-6, atol=0)
