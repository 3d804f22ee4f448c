import math

import pytest
import torch

from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.scores import Grain
from pruning.scores.grain import regularised_heads
from tests.pruning.parts import random_calibration, readings_of, scored, with_sums


def test_units_are_moving_averages_of_the_size_of_summed_products(base: BaseModel, train: LabelledSet) -> None:
    sums = scored(base, train, Grain())
    qk, vo, neurons, single = (0.0,) * 4
    query, bias, output, second = (
        base.tensors[f"layers.1.{name}"]
        for name in ("query.weight", "query.bias", "attention_output.weight", "ffn_out.weight")
    )
    for reading in readings_of(base, train):
        gradients = {name.removeprefix("layers.1."): gradient for name, gradient in reading.gradients.items()}
        unit = (query[5] * gradients["query.weight"][5]).sum() + bias[5] * gradients["query.bias"][5]
        qk = 0.998 * qk + 0.002 * abs(float(unit))
        vo = 0.998 * vo + 0.002 * abs(float((output[:, 5] * gradients["attention_output.weight"][:, 5]).sum()))
        neurons = 0.998 * neurons + 0.002 * abs(float((second[:, 63] * gradients["ffn_out.weight"][:, 63]).sum()))
        single = 0.998 * single + 0.002 * abs(float(query[5, 7] * gradients["query.weight"][5, 7]))
    assert float(sums["layers.1.qk"][5]) == pytest.approx(qk, rel=1e-3)
    assert float(sums["layers.1.vo"][5]) == pytest.approx(vo, rel=1e-3)
    assert float(sums["layers.1.neurons"][63]) == pytest.approx(neurons, rel=1e-3)
    assert float(sums["layers.1.query.weight"][5, 7]) == pytest.approx(single, rel=1e-3)
    scores = Grain().structures(base, with_sums(random_calibration(base), sums))
    assert torch.equal(scores.neurons_LF[1], sums["layers.1.neurons"])


def test_a_head_scores_the_mean_of_its_units_times_the_tanh_of_the_share_that_is_left(base: BaseModel) -> None:
    # 2 layers, 4 heads of 8 units each, of which 32 VO units are left
    vo_LW = torch.zeros(2, 32)
    vo_LW[0, :8] = 5.0  # head 0 keeps all its units, head 1 a half, the others of the layer none
    vo_LW[0, 8:12] = 4.0
    vo_LW[1, :20] = 3.0
    qk_LW = torch.ones(2, 32)
    heads_LN = torch.stack(regularised_heads(base.shape.head_dim, list(qk_LW), list(vo_LW), 32))
    assert float(heads_LN[0, 0]) == pytest.approx(3.0 * math.tanh(1 / 0.3), rel=1e-5)
    assert float(heads_LN[0, 1]) == pytest.approx(1.5 * math.tanh(0.5 / 0.3), rel=1e-5)
    assert heads_LN[0, 2:].tolist() == [0.0, 0.0]
    assert float(heads_LN[1, 2]) == pytest.approx(1.25 * math.tanh(0.5 / 0.3), rel=1e-5)
