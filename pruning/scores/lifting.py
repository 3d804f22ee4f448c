"""From scores of single weights to scores of heads and neurons: the mean over the weights that a structure owns.

A head owns its rows of Q, K, V and its columns of O, a neuron its row of the first FFN matrix and its column of the
second: ``Shape.head_weights`` and ``Shape.neuron_weights`` of them. A sum would make every head some hundred times as
important as a neuron, merely because it is so much larger; the mean is the importance of one weight gone, whichever
structure it goes with, so that heads and neurons share a scale, and a budget of weights. "Just CHOP" lifts PLATON's
scores by such a norm; most criteria say nothing about structures, and then this rule is ours.

Letters: L layers, N heads, W width of all heads, F FFN neurons, I inputs and O outputs of a linear layer.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pruning.cost import Shape
from pruning.scores.base import StructureScores
from pruning.tensor_sizes import PRUNABLE_SLOTS


def lifted(shape: Shape, weights: Mapping[str, Tensor]) -> StructureScores:
    """Return the mean score of the weights that each head and neuron owns."""
    sums = structure_sums(shape, weights)
    return StructureScores(sums.heads_LN / shape.head_weights, sums.neurons_LF / shape.neuron_weights)


def structure_sums(shape: Shape, weights: Mapping[str, Tensor]) -> StructureScores:
    """Return the sum over the weights that each head and neuron owns."""
    heads_LN, neurons_LF = [], []
    for layer in range(shape.num_layers):
        scores = {slot: weights[f"layers.{layer}.{slot}.weight"] for slot in PRUNABLE_SLOTS}
        projections = scores["query"], scores["key"], scores["value"], scores["attention_output"]
        heads_LN.append(head_sums(*projections, shape.head_dim))
        neurons_LF.append(neuron_sums(scores["ffn_in"], scores["ffn_out"]))
    return StructureScores(torch.stack(heads_LN), torch.stack(neurons_LF))


def head_sums(query_WI: Tensor, key_WI: Tensor, value_WI: Tensor, output_OW: Tensor, head_dim: int) -> Tensor:
    """Return the sum [N] over the weights of each head of one layer, from the scores of its four matrices."""
    rows_W = query_WI.sum(1) + key_WI.sum(1) + value_WI.sum(1)
    return (rows_W + output_OW.sum(0)).view(-1, head_dim).sum(1)


def neuron_sums(in_FI: Tensor, out_OF: Tensor) -> Tensor:
    """Return the sum [F] over the weights of each neuron of one layer, from the scores of its two matrices."""
    return in_FI.sum(1) + out_OF.sum(0)
