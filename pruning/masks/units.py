"""Which dimensions inside the heads are kept: the units of GRAIN (Yang et al., 2023).

A QK unit is a dimension over which products of queries and keys are summed: a row of W_q and one of W_k. A VO unit is a
dimension of the values: a row of W_v and a column of W_o. In a layer every kept head keeps as many of each as every
other one, since attention kernels want rectangles; which ones is each head's own.

Letters: L layers, N heads, H head dimension.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from pruning.cost import HeadDims, Shape

STEP = 8
"""Most units per step of the search: what the attention kernels of GPUs fill up to, and a vector of most CPUs."""


@dataclass(frozen=True, slots=True)
class UnitMask:
    """True = kept. What stands at heads that are not kept means nothing."""

    qk_LNH: Tensor
    vo_LNH: Tensor

    @classmethod
    def whole(cls, shape: Shape) -> Self:
        """Return the mask that keeps every unit."""
        size = (shape.num_layers, shape.num_heads, shape.head_dim)
        return cls(torch.ones(size, dtype=torch.bool), torch.ones(size, dtype=torch.bool))

    def dims_of_head(self, layer: int, head: int) -> HeadDims:
        """Return how many units a head keeps."""
        return HeadDims(int(self.qk_LNH[layer, head].sum()), int(self.vo_LNH[layer, head].sum()))


def unit_step(head_dim: int) -> int:
    """Return how many units go together: a quarter of a head, at most ``STEP``."""
    return min(STEP, max(1, head_dim // 4))
