"""Masks of ones, one per sequence and structure: the gradients of the loss with respect to them are mask gradients.

Letters: B sequences, m micro-batches, L layers, N heads, F FFN neurons, U either, R rows that a layer computes, W width
of a site.
"""

import torch
from torch import Tensor

from pruning.cost import Shape
from pruning.slim.bert import Site

GATED = (Site.ATTENTION, Site.FFN)
"""Where structures end, and so where a mask of theirs multiplies."""


class Gates:
    """The masks of one batch, multiplied into every output projection's input."""

    def __init__(self, shape: Shape, num_sequences: int) -> None:
        """Make them, all ones."""
        self._head_dim = shape.head_dim
        layers = range(shape.num_layers)
        self.heads_LBN = [torch.ones(num_sequences, shape.num_heads, requires_grad=True) for _ in layers]
        self.neurons_LBF = [torch.ones(num_sequences, shape.ffn, requires_grad=True) for _ in layers]

    def through(self, layer: int, site: Site, values_RW: Tensor, sequence_R: Tensor) -> Tensor:
        """Return the values times the masks of their sequences; those of other sites as they are. A tap."""
        if site is Site.FFN:
            return values_RW * self.neurons_LBF[layer][sequence_R]
        if site is Site.ATTENTION:
            return values_RW * self.heads_LBN[layer][sequence_R].repeat_interleave(self._head_dim, dim=1)
        return values_RW

    def take_gradients(self, micro_batch: int = 1) -> tuple[Tensor, Tensor]:
        """Return head [m, L, N] and neuron gradients [m, L, F] since the last call, summed over micro-batches.

        Raises:
            AssertionError: no loss was differentiated since.
        """

        def summed(gates_LBU: list[Tensor]) -> Tensor:
            gradients_LBU = []
            for gate_BU in gates_LBU:
                assert gate_BU.grad is not None  # every structure takes part in the loss
                gradients_LBU.append(gate_BU.grad)
                gate_BU.grad = None
            stacked_BLU = torch.stack(gradients_LBU, dim=1)
            return torch.stack([part_mLU.sum(0) for part_mLU in stacked_BLU.split(micro_batch)])

        return summed(self.heads_LBN), summed(self.neurons_LBF)
