"""Importance of the dimensions inside heads: a scorer's own, or its scores of single weights lifted.

Units compete within their head alone, for in a layer every kept head keeps as many: a factor that all units of a head
share changes nothing.

Letters: L layers, N heads, H head dimension, W = N * H.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pruning.calibration import Calibration
from pruning.cost import Shape
from pruning.encoder import BaseModel
from pruning.scores.base import Scorer
from pruning.unit_pass import UnitStatistics


@dataclass(frozen=True, slots=True)
class UnitScores:
    """One importance score per unit, larger = keep."""

    qk_LNH: Tensor
    vo_LNH: Tensor


@runtime_checkable
class UnitScorer(Protocol):
    """A scorer that says itself what a unit is worth."""

    def units(self, base: BaseModel, calibration: Calibration, statistics: UnitStatistics) -> UnitScores:
        """Return the importance of every unit."""


def unit_scores(scorer: Scorer, base: BaseModel, calibration: Calibration, statistics: UnitStatistics) -> UnitScores:
    """Return the importance of every unit by ``scorer``."""
    if isinstance(scorer, UnitScorer):
        return scorer.units(base, calibration, statistics)
    return lifted_units(base.shape, scorer.weights(base, calibration))


def lifted_units(shape: Shape, weights: Mapping[str, Tensor]) -> UnitScores:
    """Return the mean score of the weights that each unit owns.

    Those are a row of W_q and one of W_k, or a row of W_v and a column of W_o; the rule is ours, as in
    ``pruning.scores.lifting``.
    """

    def of_layer(layer: int, slot: str) -> Tensor:
        return weights[f"layers.{layer}.{slot}.weight"]

    qk, vo = [], []
    for layer in range(shape.num_layers):
        qk.append(of_layer(layer, "query").mean(1) + of_layer(layer, "key").mean(1))
        vo.append(of_layer(layer, "value").mean(1) + of_layer(layer, "attention_output").mean(0))
    return UnitScores(*(by_head(shape, torch.stack(part)) / 2 for part in (qk, vo)))


def by_head(shape: Shape, units_LW: Tensor) -> Tensor:
    """Return units of all heads side by side as [L, N, H]."""
    units_LNH: Tensor = units_LW.unflatten(1, (shape.num_heads, shape.head_dim))
    return units_LNH
