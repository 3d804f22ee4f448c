"""Attention within sequences of one length, by whichever way is fastest for that length and device.

Letters: B sequences, R queries and S keys of each, N heads, H head dimension.
"""

import torch
from torch import Tensor
from torch.nn import functional

SHORT = 64
"""Keys up to which two batched products beat the fused kernel on a CPU. That one works through blocks of keys that a
short sequence does not fill."""
LONGEST = {torch.float32: SHORT, torch.bfloat16: 512}
"""The same by precision; other precisions always take the fused kernel."""


def attend(query_BRNH: Tensor, key_BSNH: Tensor, value_BSNH: Tensor) -> Tensor:
    """Return ``softmax(Q K^T / sqrt(H)) V`` of every sequence and head, heads side by side: [B * R, N * H]."""
    query, key, value = (part.transpose(1, 2) for part in (query_BRNH, key_BSNH, value_BSNH))
    length = key.shape[2]
    if query.device.type == "cpu" and length <= LONGEST.get(query.dtype, 0):
        scores_BNRS = torch.matmul(query * query.shape[3] ** -0.5, key.transpose(2, 3))
        # The kernel for rows of bfloat16 is slow where they are short.
        wide = torch.float32 if length < SHORT else None
        context = torch.matmul(torch.softmax(scores_BNRS, dim=3, dtype=wide).to(value.dtype), value)
    else:
        context = functional.scaled_dot_product_attention(query, key, value)
    return context.transpose(1, 2).reshape(-1, query.shape[1] * query.shape[3])
