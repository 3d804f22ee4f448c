from dataclasses import replace

import torch

from pruning.encoder import BaseModel
from pruning.scores import Random
from tests.pruning.parts import random_calibration


def test_one_model_and_seed_always_have_the_same_scores_and_others_have_others(base: BaseModel) -> None:
    other = replace(base, weights_digest="other")
    draws = ((base, 0), (base, 0), (other, 0), (base, 1))
    one, again, *changed = (Random().structures(model, random_calibration(base, seed=seed)) for model, seed in draws)
    assert torch.equal(one.neurons_LF, again.neurons_LF) and torch.equal(one.heads_LN, again.heads_LN)
    assert not any(torch.equal(one.neurons_LF, scores.neurons_LF) for scores in changed)
    weights, same, *others = (Random().weights(model, random_calibration(base, seed=seed)) for model, seed in draws)
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert not any(torch.equal(weights[name], scores[name]) for scores in others for name in weights)


def test_no_two_tensors_have_the_same_numbers(base: BaseModel) -> None:
    sums = {float(part.sum()) for part in Random().weights(base, random_calibration(base)).values()}
    assert len(sums) == len(base.prunable_weights())
