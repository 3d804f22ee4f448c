"""Attention within the sequences of a group, by whichever way is fastest for their length and device.

Letters: B sequences, R queries and S keys of each, N heads, H head dimension, T tokens, W = N * H,
Q queries of all sequences together, Z slots of all.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pruning.slim.groups import Group

SHORT = 64
"""Keys up to which two batched products beat the fused kernel on a CPU. That one works through blocks of keys that a
short sequence does not fill."""
LONGEST = {torch.float32: SHORT, torch.bfloat16: 512}
"""The same by precision; other precisions always take the fused kernel."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """A batch in groups of neighbours of like length, one call for each: the layout of every device."""

    groups: tuple[Group, ...]

    def context(self, query_RW: Tensor, key_value_T2W: Tensor, head_dim: int, *, first_only: bool) -> Tensor:
        """Attend within each sequence, group by group; rows of no sequence get zeros. See ``packed.Layout``."""
        parts = []
        rows = 0
        for group in self.groups:
            keys = slice(group.start, group.stop)
            asking = slice(rows, rows + group.count) if first_only else keys
            parts.append(attend_group(query_RW[asking], key_value_T2W[keys], group, head_dim, first_only=first_only))
            rows = asking.stop
        if rows < query_RW.shape[0]:
            parts.append(query_RW.new_zeros(query_RW.shape[0] - rows, query_RW.shape[1]))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def attend_group(query_QW: Tensor, key_value_T2W: Tensor, group: Group, head_dim: int, *, first_only: bool) -> Tensor:
    """Return the context of a group's queries, heads side by side: [Q, W].

    Args:
        query_QW: queries of the group.
        key_value_T2W: keys and values of all its tokens, side by side.
        group: how they lie.
        head_dim: H.
        first_only: whether the queries are of the first token of each sequence, Q = B, or of all tokens, Q = T.
    """
    filling, width = group.filling, query_QW.shape[1]
    if filling is not None:
        key_value_T2W = key_value_T2W.index_select(0, filling.source_Z)
        query_QW = query_QW if first_only else query_QW.index_select(0, filling.source_Z)
    query_BRNH = query_QW.view(group.count, -1, width // head_dim, head_dim)
    key_value_BS2NH = key_value_T2W.view(group.count, group.length, 2, width // head_dim, head_dim)
    key_BSNH, value_BSNH = key_value_BS2NH.unbind(2)
    context_BRNH = attend(query_BRNH, key_BSNH, value_BSNH, None if filling is None else filling.kept_BS)
    context_QW = context_BRNH.reshape(-1, width)
    return context_QW if filling is None or first_only else context_QW.index_select(0, filling.slot_T)


def attend(query_BRNH: Tensor, key_BSNH: Tensor, value_BSNH: Tensor, kept_BS: Tensor | None) -> Tensor:
    """Return ``softmax(Q K^T / sqrt(H)) V`` over the keys kept, of every sequence and head: [B, R, N, H]."""
    query, key, value = (part.transpose(1, 2) for part in (query_BRNH, key_BSNH, value_BSNH))
    kept = None if kept_BS is None else kept_BS[:, None, None, :]
    if query.device.type == "cpu" and key.shape[2] <= LONGEST.get(query.dtype, 0):
        context = _by_two_products(query, key, value, kept)
    else:
        context = functional.scaled_dot_product_attention(query, key, value, kept)
    return context.transpose(1, 2)


def _by_two_products(query_BNRH: Tensor, key_BNSH: Tensor, value_BNSH: Tensor, kept: Tensor | None) -> Tensor:
    sequences, heads, rows, head_dim = query_BNRH.shape
    # Short rows are slow in bfloat16, and its products have a kernel of their own for every shape.
    dtype = torch.float32 if key_BNSH.shape[2] < SHORT else query_BNRH.dtype
    parts = (part.to(dtype).reshape(sequences * heads, -1, head_dim) for part in (query_BNRH, key_BNSH, value_BNSH))
    query, key, value = parts
    nothing = query.new_empty(())
    scores = torch.baddbmm(nothing, query, key.transpose(1, 2), beta=0, alpha=head_dim**-0.5)
    if kept is not None:
        scores.view(sequences, heads, rows, -1).masked_fill_(~kept, -torch.inf)
    context = torch.bmm(torch.softmax(scores, dim=2), value)
    return context.view(sequences, heads, rows, head_dim).to(query_BNRH.dtype)
