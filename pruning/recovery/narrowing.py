"""Take heads, units inside them and neurons out of layers that are slim already: of weights, or of an optimizer's.

Letters: N heads of a layer, H dimensions of each for queries and keys, V for values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from pruning.slim.attention import Heads


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays of a layer: positions among what it has now, ascending."""

    queries: Tensor
    """Of the N * H rows of queries, and as many of keys."""
    values: Tensor
    """Of the N * V rows of values."""
    neurons: Tensor
    query_width: int
    """N * H now."""

    @classmethod
    def whole_heads(cls, heads_N: Tensor, neurons: Tensor, now: Heads) -> Self:
        """Keep some of the heads that there are now, as they are."""
        qk, vo = (torch.arange(size, device=heads_N.device) for size in now.dims)
        return cls.inside_heads(heads_N, qk, vo, neurons, now)

    @classmethod
    def inside_heads(cls, heads_N: Tensor, qk_NH: Tensor, vo_NV: Tensor, neurons: Tensor, now: Heads) -> Self:
        """Keep some units of some of the heads that there are now."""
        queries_NH = heads_N[:, None] * now.dims.qk + qk_NH
        values_NV = heads_N[:, None] * now.dims.vo + vo_NV
        return cls(queries_NH.flatten(), values_NV.flatten(), neurons, now.query_width)


def narrowed(tensors: Mapping[str, Tensor], kept: Sequence[Kept]) -> dict[str, Tensor]:
    """Return the tensors of layers, by ``layers.<n>.<slot>.<part>``, without what is not ``kept``."""
    return {name: _narrowed(name, tensor, kept[int(name.split(".")[1])]) for name, tensor in tensors.items()}


def _narrowed(name: str, tensor: Tensor, kept: Kept) -> Tensor:
    _, _, slot, part = name.split(".")
    if slot == "qkv":
        rows = (kept.queries, kept.queries + kept.query_width, kept.values + 2 * kept.query_width)
        return tensor.index_select(0, torch.cat(rows).to(tensor.device))
    if slot == "ffn_in":
        return tensor.index_select(0, kept.neurons.to(tensor.device))
    if part == "weight" and slot in ("attention_output", "ffn_out"):
        return tensor.index_select(1, (kept.values if slot == "attention_output" else kept.neurons).to(tensor.device))
    return tensor
