"""From scores of single weights to scores of heads and neurons: the mean over the weights that a structure owns.

A head owns its rows of Q, K, V and its columns of O, a neuron its row of the first FFN matrix and its column of the
second: ``Shape.head_weights`` and ``Shape.neuron_weights`` of them. A sum would make every head some hundred times as
important as a neuron, merely because it is so much larger; the mean is the importance of one weight gone, whichever
structure it goes with, so that heads and neurons share a scale, and a budget of weights. "Just CHOP" lifts PLATON's
scores by such a norm; most criteria say nothing about structures, and then this rule is ours.

Letters: L layers, N heads, W width of all heads, F FFN neurons.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pruning.cost import Shape
from pruning.scores.base import StructureScores


def lifted(shape: Shape, weights: Mapping[str, Tensor]) -> StructureScores:
    """Return the mean score of the weights that each head and neuron owns."""
    sums = structure_sums(shape, weights)
    return StructureScores(sums.heads_LN / shape.head_weights, sums.neurons_LF / shape.neuron_weights)


def structure_sums(shape: Shape, weights: Mapping[str, Tensor]) -> StructureScores:
    """Return the sum over the weights that each head and neuron owns."""
    heads_LN, neurons_LF = [], []
    for layer in range(shape.num_layers):
        rows_W = sum(weights[f"layers.{layer}.{slot}.weight"].sum(1) for slot in ("query", "key", "value"))
        width_W = rows_W + weights[f"layers.{layer}.attention_output.weight"].sum(0)
        heads_LN.append(width_W.view(shape.num_heads, shape.head_dim).sum(1))
        row_F = weights[f"layers.{layer}.ffn_in.weight"].sum(1)
        neurons_LF.append(row_F + weights[f"layers.{layer}.ffn_out.weight"].sum(0))
    return StructureScores(torch.stack(heads_LN), torch.stack(neurons_LF))
