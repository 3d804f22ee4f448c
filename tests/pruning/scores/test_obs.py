from dataclasses import replace

import pytest
import torch

from pruning.curves import cost_curves
from pruning.encoder import BaseModel
from pruning.errors import SpecError
from pruning.masks.structures import Kind
from pruning.reconstruction import damping, least_squares, output_error
from pruning.removal import removal_order
from pruning.scores import Obs
from pruning.slim.bert import Site
from tests.pruning.parts import random_calibration

SITES = {Kind.HEAD: (Site.ATTENTION, "attention_output", 8), Kind.NEURON: (Site.FFN, "ffn_out", 1)}


def test_cost_curves_follow_the_order_of_removal(base: BaseModel) -> None:
    calibration = random_calibration(base)
    for curve in cost_curves(base, calibration, Obs().structures(base, calibration)):
        site, slot, dims_each = SITES[curve.kind]
        gram = calibration.grams[curve.layer, site] / calibration.tokens_L[curve.layer]
        weight = base.tensors[f"layers.{curve.layer}.{slot}.weight"]
        assert curve.order.tolist() == removal_order(weight, gram, dims_each).order.tolist()


def test_a_score_is_the_least_error_per_token_once_the_structure_and_all_below_it_are_gone(base: BaseModel) -> None:
    calibration = random_calibration(base)
    scores = Obs().structures(base, calibration).neurons_LF[1]
    weight = base.tensors["layers.1.ffn_out.weight"].double()
    gram = calibration.grams[1, Site.FFN].double() / 100
    for rank in (0, 20, 62):
        score = scores.sort().values[rank]
        kept = (scores > score).nonzero().flatten()
        solved = least_squares(weight, gram, kept)
        change = weight.clone()
        change[:, kept] -= solved
        error = output_error(weight, solved, gram, kept) + damping(gram) * change.square().sum()
        torch.testing.assert_close(score, error, rtol=1e-6, atol=1e-12)


def test_neither_labels_nor_gradients_enter(base: BaseModel) -> None:
    calibration = random_calibration(base)
    blind = replace(
        calibration,
        head_gradients_MLN=torch.zeros_like(calibration.head_gradients_MLN),
        neuron_gradients_MLF=torch.zeros_like(calibration.neuron_gradients_MLF),
    )
    assert torch.equal(Obs().structures(base, blind).heads_LN, Obs().structures(base, calibration).heads_LN)


def test_single_weights_are_refused_with_the_remedy(base: BaseModel) -> None:
    with pytest.raises(SpecError, match="'obs' ranks whole heads and neurons; for single weights use 'fisher'"):
        Obs().weights(base, random_calibration(base))
