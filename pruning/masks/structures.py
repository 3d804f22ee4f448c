"""Choose the heads and neurons to keep under a budget of weights (Kwon et al., 2022, section 3.2, made exact).

Heads and neurons are ranked apart, each globally over the layers. For every possible number of heads the rest of
the budget is spent on neurons; the combination that keeps the most importance wins. Neurons come in blocks of
``round_to`` per layer, so widths are rounded inside the search. Departure from the paper: the budget is counted in
prunable weights instead of MACs, and neurons in blocks instead of one by one.

Letters: L layers, N heads, F neurons.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.cost import Shape
from pruning.errors import SpecError

ROUND_TO = 16
"""Neurons per block: one cache line of float32, a multiple of what the matrix kernels unroll by."""


@dataclass(frozen=True, slots=True)
class StructureMask:
    """True = kept."""

    heads_LN: Tensor
    neurons_LF: Tensor

    def kept_heads(self, layer: int) -> Tensor:
        """Return the indices of the heads kept in a layer, ascending."""
        return self.heads_LN[layer].nonzero().flatten()

    def kept_neurons(self, layer: int) -> Tensor:
        """Return the indices of the neurons kept in a layer, ascending."""
        return self.neurons_LF[layer].nonzero().flatten()

    @property
    def head_counts(self) -> list[int]:
        """Heads kept in each layer."""
        return [int(count) for count in self.heads_LN.sum(1)]

    @property
    def neuron_counts(self) -> list[int]:
        """Neurons kept in each layer."""
        return [int(count) for count in self.neurons_LF.sum(1)]

    def sparsity(self, shape: Shape) -> float:
        """Return the share of prunable weights that are gone."""
        kept = sum(self.head_counts) * shape.head_weights + sum(self.neuron_counts) * shape.neuron_weights
        return 1.0 - kept / shape.prunable_weights


def structure_mask(
    heads_LN: Tensor, neurons_LF: Tensor, shape: Shape, sparsity: float, *, round_to: int = ROUND_TO
) -> StructureMask:
    """Return the heads and neurons that keep the most importance at ``sparsity``.

    ``heads_LN`` and ``neurons_LF`` are importance scores on one scale, larger = keep.

    The achieved sparsity differs from the request by at most half a block of neurons, or half a head where no
    neuron is left to fill the gap. Ties are broken by layer, then index: the lower one is kept.

    Raises:
        SpecError: the sparsity is so high that not one head or block of neurons fits.
    """
    block_scores_LK, order_LF = _blocks(neurons_LF, round_to)
    head_order = _descending(heads_LN.flatten())
    block_order = _descending(block_scores_LK.flatten())
    num_heads, num_blocks = _best_split(
        _running_sum(heads_LN.flatten()[head_order]),
        _running_sum(block_scores_LK.flatten()[block_order]),
        shape,
        sparsity,
        round_to,
    )
    kept_heads = torch.zeros(heads_LN.numel(), dtype=torch.bool)
    kept_heads[head_order[:num_heads]] = True
    kept_blocks = torch.zeros(block_scores_LK.numel(), dtype=torch.bool)
    kept_blocks[block_order[:num_blocks]] = True
    counts_L = (kept_blocks.view_as(block_scores_LK).sum(1) * round_to).clamp(max=shape.ffn)
    kept_neurons = torch.zeros(neurons_LF.shape, dtype=torch.bool)
    for layer, count in enumerate(counts_L.tolist()):
        kept_neurons[layer, order_LF[layer, :count]] = True
    return StructureMask(kept_heads.view_as(heads_LN), kept_neurons)


def _descending(values: Tensor) -> Tensor:
    """Return the order from largest to smallest, equal values by index."""
    return torch.sort(values, descending=True, stable=True).indices


def _running_sum(values: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.float64), values.double().cumsum(0)])


def _blocks(neurons_LF: Tensor, round_to: int) -> tuple[Tensor, Tensor]:
    """Return block scores [L, K] and each layer's neuron order: block k holds ranks k*round_to and on.

    Within a layer block scores never rise, so the best blocks of a layer are always its first ones.
    """
    order_LF = torch.stack([_descending(row) for row in neurons_LF])
    sorted_LF = torch.gather(neurons_LF, 1, order_LF).double()
    missing = -sorted_LF.shape[1] % round_to
    padded = torch.nn.functional.pad(sorted_LF, (0, missing))
    return padded.view(padded.shape[0], -1, round_to).sum(2), order_LF


def _best_split(head_gain: Tensor, block_gain: Tensor, shape: Shape, sparsity: float, round_to: int) -> tuple[int, int]:
    """Return (heads, neuron blocks) to keep: on budget first, then the most importance."""
    budget = (1.0 - sparsity) * shape.prunable_weights
    block_weights = shape.neuron_weights * round_to
    best: tuple[float, float, int, int] | None = None
    for num_heads in range(head_gain.numel()):
        left = budget - num_heads * shape.head_weights
        num_blocks = min(max(round(left / block_weights), 0), block_gain.numel() - 1)
        miss = abs(left - num_blocks * block_weights)
        # Combinations within half a block of the budget are equally good; beyond that, closer is better.
        beyond = max(0.0, miss - block_weights / 2)
        gain = float(head_gain[num_heads] + block_gain[num_blocks])
        candidate = (beyond, -gain, num_heads, num_blocks)
        if best is None or candidate < best:
            best = candidate
    if best is None or (best[2] == 0 and best[3] == 0):
        raise SpecError(f"sparsity {sparsity} leaves no head and no block of {round_to} neurons; ask for less")
    return best[2], best[3]
