"""A batch laid end to end for kernels that take offsets: one call for all its sequences, whatever their lengths.

Only GPUs have such kernels: flash attention in half precision, memory-efficient attention in float32. Nothing that
they are told lies on the host but the longest length, so that a CUDA graph can replay them for other sequences.

Letters: B sequences, T tokens of all, R rows of queries, N heads, H dimensions of each for queries and keys, V for
values, W numbers of a token's keys and values.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from pruning.slim.attention import Heads, widened

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None  # type: ignore[assignment]

EVEN_WIDTH = 8
"""The kernels want heads whose dimension is a multiple of this; others are filled up with zeros."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Where each of B sequences begins and ends."""

    offsets_B1: Tensor
    """int32: first token of each sequence, then the end of the last; equal neighbours are a sequence of no token."""
    longest: int
    """Tokens of the longest sequence, or any number above."""

    def context(self, query_RNH: Tensor, key_value_TW: Tensor, heads: Heads, *, first_only: bool) -> Tensor:
        """Attend within each sequence, all in one call; rows of no sequence get anything. See ``packed.Layout``."""
        query, key, value = kernel_operands(query_RNH, key_value_TW, heads)
        offsets, longest = self.offsets_B1, self.longest
        if first_only:
            offsets, longest = torch.arange(offsets.shape[0], dtype=torch.int32, device=offsets.device), 1
        if query.dtype == torch.float32:
            context = torch.ops.aten._efficient_attention_forward(
                query[None], key[None], value[None], None,
                offsets, self.offsets_B1, longest, self.longest, 0.0, 0, scale=heads.scale,
            )[0][0]  # fmt: skip
        else:
            context = varlen_attn(query, key, value, offsets, self.offsets_B1, longest, self.longest, scale=heads.scale)
        context_RNV: Tensor = context[..., : heads.dims.vo].reshape(-1, heads.value_width)
        return context_RNV


def kernel_operands(query_RNH: Tensor, key_value_TW: Tensor, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, [R or T, N, one width that the kernels take]; zeros fill up to it."""
    key, value = key_value_TW.split((heads.query_width, heads.value_width), dim=1)
    width = -(-max(heads.dims) // EVEN_WIDTH) * EVEN_WIDTH
    query, key = (widened(part.view(-1, heads.count, heads.dims.qk), width) for part in (query_RNH, key))
    return query, key, widened(value.view(-1, heads.count, heads.dims.vo), width)


@cache
def computes_spans(device: torch.device) -> bool:
    """Tell whether this device, and this build of torch, has the kernels."""
    return (
        device.type == "cuda"
        and varlen_attn is not None
        and hasattr(torch.ops.aten, "_efficient_attention_forward")
        and torch.cuda.get_device_capability(device) >= (8, 0)  # flash attention begins with Ampere
    )
