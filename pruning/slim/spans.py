"""A batch laid end to end for kernels that take offsets: one call for all its sequences, whatever their lengths.

Only GPUs have such kernels: flash attention in half precision, memory-efficient attention in float32. Nothing that
they are told lies on the host but the longest length, so that a CUDA graph can replay them for other sequences.

Letters: B sequences, T tokens of all, R rows of queries, N heads, H head dimension, W = N * H.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

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

    def context(self, query_RW: Tensor, key_value_T2W: Tensor, head_dim: int, *, first_only: bool) -> Tensor:
        """Attend within each sequence, all in one call; rows of no sequence get anything. See ``packed.Layout``."""
        width = query_RW.shape[1]
        heads = width // head_dim
        missing = -head_dim % EVEN_WIDTH
        query_RNH = _wide(query_RW.view(-1, heads, head_dim), missing)
        key_TNH, value_TNH = _wide(key_value_T2W.view(-1, 2, heads, head_dim), missing).unbind(1)
        offsets, longest = self.offsets_B1, self.longest
        if first_only:
            offsets, longest = torch.arange(offsets.shape[0], dtype=torch.int32, device=offsets.device), 1
        scale = head_dim**-0.5
        if query_RW.dtype == torch.float32:
            context_RNH = torch.ops.aten._efficient_attention_forward(
                query_RNH[None], key_TNH[None], value_TNH[None], None,
                offsets, self.offsets_B1, longest, self.longest, 0.0, 0, scale=scale,
            )[0][0]  # fmt: skip
        else:
            context_RNH = varlen_attn(
                query_RNH, key_TNH, value_TNH, offsets, self.offsets_B1, longest, self.longest, scale=scale
            )
        context_RW: Tensor = context_RNH[..., :head_dim].reshape(-1, width)
        return context_RW


def _wide(values: Tensor, missing: int) -> Tensor:
    return functional.pad(values, (0, missing)) if missing else values


@cache
def computes_spans(device: torch.device) -> bool:
    """Tell whether this device, and this build of torch, has the kernels."""
    return (
        device.type == "cuda"
        and varlen_attn is not None
        and hasattr(torch.ops.aten, "_efficient_attention_forward")
        and torch.cuda.get_device_capability(device) >= (8, 0)  # flash attention begins with Ampere
    )
