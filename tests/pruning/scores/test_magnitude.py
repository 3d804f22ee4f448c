from dataclasses import replace

import torch

from pruning.encoder import BaseModel
from pruning.scores import Magnitude
from tests.pruning.parts import random_calibration


def test_a_head_scores_the_sizes_of_its_rows_of_q_k_v_and_its_columns_of_o(base: BaseModel) -> None:
    own = slice(16, 24)
    expected = (
        sum(base.tensors[f"layers.1.{slot}.weight"][own].double().abs().sum() for slot in ("query", "key", "value"))
        + base.tensors["layers.1.attention_output.weight"][:, own].double().abs().sum()
    )
    scores = Magnitude().structures(base, random_calibration(base))
    torch.testing.assert_close(scores.heads_LN[1, 2].double(), expected, rtol=1e-5, atol=0)


def test_a_neuron_scores_the_sizes_of_its_row_and_its_column(base: BaseModel) -> None:
    row, column = base.tensors["layers.0.ffn_in.weight"][63], base.tensors["layers.0.ffn_out.weight"][:, 63]
    scores = Magnitude().structures(base, random_calibration(base))
    torch.testing.assert_close(
        scores.neurons_LF[0, 63].double(), row.double().abs().sum() + column.double().abs().sum(), rtol=1e-5, atol=0
    )


def test_a_weight_scores_its_size(base: BaseModel) -> None:
    scores = Magnitude().weights(base, random_calibration(base))
    assert set(scores) == set(base.prunable_weights())
    assert all(torch.equal(scores[name], weight.abs()) for name, weight in base.prunable_weights().items())


def test_the_calibration_does_not_matter(base: BaseModel) -> None:
    one, two = (Magnitude().structures(base, random_calibration(base, seed=seed)) for seed in (0, 1))
    assert torch.equal(one.heads_LN, two.heads_LN)
    assert torch.equal(one.neurons_LF, two.neurons_LF)


def test_the_sign_of_a_weight_does_not_matter(base: BaseModel) -> None:
    calibration = random_calibration(base)
    mirrored = replace(base, tensors={name: -tensor for name, tensor in base.tensors.items()})
    one, two = (Magnitude().structures(model, calibration) for model in (base, mirrored))
    assert torch.equal(one.heads_LN, two.heads_LN)
