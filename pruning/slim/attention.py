"""Attention within the sequences of a group, by whichever way is fastest for their length and device.

Letters: B sequences, R queries and S keys of each, N heads, H dimensions of each for queries and keys, V for values,
T tokens, Q queries of all sequences together, Z slots of all; NH and NV the heads side by side.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pruning.cost import HeadDims
from pruning.slim.groups import Group

SHORT = 64
"""Keys up to which two batched products beat the fused kernel on a CPU. That one works through blocks of keys that a
short sequence does not fill."""
LONGEST = {torch.float32: SHORT, torch.bfloat16: 512}
"""The same by precision; other precisions always take the fused kernel."""


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of one layer."""

    count: int
    """N."""
    dims: HeadDims
    """H and V."""
    scale: float
    """What products of queries and keys are multiplied with: 1 / sqrt(H of the dense model), whatever is left of it."""

    @property
    def query_width(self) -> int:
        """Numbers of all heads' queries, and of all their keys, of one token."""
        return self.count * self.dims.qk

    @property
    def value_width(self) -> int:
        """Numbers of all heads' values of one token, and so of their context."""
        return self.count * self.dims.vo


@dataclass(frozen=True, slots=True)
class Grouped:
    """A batch in groups of neighbours of like length, one call for each: the layout of every device."""

    groups: tuple[Group, ...]

    def context(self, query_RNH: Tensor, key_value_TW: Tensor, heads: Heads, *, first_only: bool) -> Tensor:
        """Attend within each sequence, group by group; rows of no sequence get zeros. See ``packed.Layout``."""
        parts = []
        rows = 0
        for group in self.groups:
            keys = slice(group.start, group.stop)
            asking = slice(rows, rows + group.count) if first_only else keys
            parts.append(attend_group(query_RNH[asking], key_value_TW[keys], group, heads, first_only=first_only))
            rows = asking.stop
        if rows < query_RNH.shape[0]:
            parts.append(query_RNH.new_zeros(query_RNH.shape[0] - rows, heads.value_width))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def attend_group(query_QNH: Tensor, key_value_TW: Tensor, group: Group, heads: Heads, *, first_only: bool) -> Tensor:
    """Return the context of a group's queries, heads side by side: [Q, NV].

    Args:
        query_QNH: queries of the group.
        key_value_TW: keys and values of all its tokens, side by side.
        group: how they lie.
        heads: how they are made up.
        first_only: whether the queries are of the first token of each sequence, Q = B, or of all tokens, Q = T.
    """
    filling = group.filling
    if filling is not None:
        key_value_TW = key_value_TW.index_select(0, filling.source_Z)
        query_QNH = query_QNH if first_only else query_QNH.index_select(0, filling.source_Z)
    key, value = key_value_TW.split((heads.query_width, heads.value_width), dim=1)
    context_BRNV = attend(
        query_QNH.view(group.count, -1, heads.count, heads.dims.qk),
        key.view(group.count, group.length, heads.count, heads.dims.qk),
        value.view(group.count, group.length, heads.count, heads.dims.vo),
        None if filling is None else filling.kept_BS,
        heads.scale,
    )
    context_QNV = context_BRNV.reshape(-1, heads.value_width)
    return context_QNV if filling is None or first_only else context_QNV.index_select(0, filling.slot_T)


def attend(query_BRNH: Tensor, key_BSNH: Tensor, value_BSNV: Tensor, kept_BS: Tensor | None, scale: float) -> Tensor:
    """Return ``softmax(scale * Q K^T) V`` over the keys kept, of every sequence and head: [B, R, N, V]."""
    query, key, value = (part.transpose(1, 2) for part in (query_BRNH, key_BSNH, value_BSNV))
    kept = None if kept_BS is None else kept_BS[:, None, None, :]
    if query.device.type == "cpu" and key.shape[2] <= LONGEST.get(query.dtype, 0):
        context = _by_two_products(query, key, value, kept, scale)
    else:
        wide = max(key.shape[3], value.shape[3])
        query, key, value_wide = (widened(part, wide) for part in (query, key, value))
        context = functional.scaled_dot_product_attention(query, key, value_wide, kept, scale=scale)
        context = context[..., : value.shape[3]]
    return context.transpose(1, 2)


def widened(values: Tensor, width: int) -> Tensor:
    """Return heads filled up with zeros to ``width`` dimensions: fused kernels want all of one width."""
    missing = width - values.shape[-1]
    return functional.pad(values, (0, missing)) if missing else values


def _by_two_products(
    query_BNRH: Tensor, key_BNSH: Tensor, value_BNSV: Tensor, kept: Tensor | None, scale: float
) -> Tensor:
    sequences, heads, rows, _ = query_BNRH.shape
    # Short rows are slow in bfloat16, and its products have a kernel of their own for every shape.
    dtype = torch.float32 if key_BNSH.shape[2] < SHORT else query_BNRH.dtype
    query, key, value = (
        part.to(dtype).reshape(sequences * heads, -1, part.shape[3]) for part in (query_BNRH, key_BNSH, value_BNSV)
    )
    nothing = query.new_empty(())
    scores = torch.baddbmm(nothing, query, key.transpose(1, 2), beta=0, alpha=scale)
    if kept is not None:
        scores.view(sequences, heads, rows, -1).masked_fill_(~kept, -torch.inf)
    context = torch.bmm(torch.softmax(scores, dim=2), value)
    return context.view(sequences, heads, rows, -1).to(query_BNRH.dtype)
