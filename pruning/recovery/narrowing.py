"""Take heads and neurons out of layers that are slim already: of weights, or of what is kept of them beside.

An optimizer keeps something of every weight; a criterion of weights, or of heads, neurons and units inside heads.

Letters: W width of the heads of a layer (heads times head dimension).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BY_UNIT = ("heads", "neurons", "qk", "vo", "ffn_in")
"""Slots whose rows are heads, neurons, or the dimensions of heads."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays of a layer: positions among what it has now, ascending."""

    heads: Tensor
    neurons: Tensor


def narrowed(tensors: Mapping[str, Tensor], kept: Sequence[Kept], head_dim: int) -> dict[str, Tensor]:
    """Return the tensors of layers, by ``layers.<n>.<slot>.<part>``, without what is not ``kept``."""
    return {name: _narrowed(name, tensor, kept[int(name.split(".")[1])], head_dim) for name, tensor in tensors.items()}


def _narrowed(name: str, tensor: Tensor, kept: Kept, head_dim: int) -> Tensor:
    _, _, slot, part = name.split(".")
    dims_W = (kept.heads[:, None] * head_dim + torch.arange(head_dim, device=kept.heads.device)).flatten()
    if slot == "qkv":
        return torch.cat([rows.index_select(0, dims_W.to(tensor.device)) for rows in tensor.chunk(3)])
    if slot in BY_UNIT:
        units = {"heads": kept.heads, "neurons": kept.neurons, "ffn_in": kept.neurons}.get(slot, dims_W)
        return tensor.index_select(0, units.to(tensor.device))
    if part == "weight" and slot in ("attention_output", "ffn_out"):
        return tensor.index_select(1, (dims_W if slot == "attention_output" else kept.neurons).to(tensor.device))
    return tensor
