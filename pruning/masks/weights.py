"""Choose single weights to keep: same shapes, with zeros."""

from collections.abc import Mapping

import torch
from torch import Tensor

WeightMask = dict[str, Tensor]
"""Tensor name -> bool, True = kept."""


def unstructured_mask(scores: Mapping[str, Tensor], sparsity: float) -> WeightMask:
    """Keep the globally most important weights: exactly ``round((1 - sparsity) * total)`` of them.

    Ties are broken by tensor order, then index: the lower one is kept.
    """
    flat = torch.cat([scores[name].flatten() for name in scores])
    kept = round((1.0 - sparsity) * flat.numel())
    mask = torch.zeros(flat.numel(), dtype=torch.bool)
    if kept:
        threshold = torch.topk(flat, kept, sorted=False).values.min()
        mask = flat > threshold
        tied = (flat == threshold).nonzero().flatten()
        mask[tied[: kept - int(mask.sum())]] = True
    parts = mask.split([scores[name].numel() for name in scores])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}


def mask_sparsity(mask: WeightMask) -> float:
    """Return the share of weights that are gone."""
    total = sum(part.numel() for part in mask.values())
    return 1.0 - sum(int(part.sum()) for part in mask.values()) / total
