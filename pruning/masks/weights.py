"""Choose single weights to keep: same shapes, with zeros.

Letters: I inputs and O outputs of a linear layer, R rows of a matrix.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pruning.errors import SpecError
from pruning.spec import Scope

WeightMask = dict[str, Tensor]
"""Tensor name -> bool, True = kept."""

GROUP = 4
"""Consecutive inputs of which the 2:4 pattern keeps two."""


def unstructured_mask(scores: Mapping[str, Tensor], sparsity: float, scope: Scope = Scope.GLOBAL) -> WeightMask:
    """Keep the most important weights of every scope: exactly ``round((1 - sparsity) * size)`` of each.

    Ties are broken by tensor order, then index: the lower one is kept.
    """
    if scope is Scope.GLOBAL:
        flat = torch.cat([score.flatten() for score in scores.values()])
        parts = _best_of(flat, sparsity).split([score.numel() for score in scores.values()])
        return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}
    if scope is Scope.LAYERWISE:
        return {name: _best_of(score.flatten(), sparsity).view_as(score) for name, score in scores.items()}
    return {
        name: _best_of_rows(score_OI, round((1.0 - sparsity) * score_OI.shape[1])) for name, score_OI in scores.items()
    }


def two_four_mask(scores: Mapping[str, Tensor]) -> WeightMask:
    """Keep exactly two of every four consecutive inputs of every output, the more important ones; of ties the lower.

    Raises:
        SpecError: a tensor whose inputs are not a multiple of four.
    """
    mask = {}
    for name, score_OI in scores.items():
        if score_OI.shape[1] % GROUP:
            raise SpecError(
                f"pattern='2:4' needs inputs in groups of {GROUP}; {name} has {score_OI.shape[1]}: use "
                "pattern='unstructured'"
            )
        mask[name] = _best_of_rows(score_OI.reshape(-1, GROUP), GROUP // 2).view_as(score_OI)
    return mask


def _best_of(flat: Tensor, sparsity: float) -> Tensor:
    """Return which values of a vector to keep."""
    kept = round((1.0 - sparsity) * flat.numel())
    mask = torch.zeros(flat.numel(), dtype=torch.bool)
    if kept:
        threshold = torch.topk(flat, kept, sorted=False).values.min()
        mask = flat > threshold
        tied = (flat == threshold).nonzero().flatten()
        mask[tied[: kept - int(mask.sum())]] = True
    return mask


def _best_of_rows(scores_RI: Tensor, kept: int) -> Tensor:
    """Return which values to keep, ``kept`` of each row."""
    order_RI = torch.sort(scores_RI, dim=1, descending=True, stable=True).indices
    return torch.zeros(scores_RI.shape, dtype=torch.bool).scatter_(1, order_RI[:, :kept], True)


def mask_sparsity(mask: WeightMask) -> float:
    """Return the share of weights that are gone."""
    total = sum(part.numel() for part in mask.values())
    return 1.0 - sum(int(part.sum()) for part in mask.values()) / total
