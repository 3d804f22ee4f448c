"""What it costs to make attention smaller by heads and by units inside them, as ``pruning.curves`` has it for heads.

    cost(n, q, v) = sensitivity^0.5 * (error of the outputs + sum over kept heads of the error of the scores)

of n heads left, each with q QK and v VO units. The first error is that of the reconstructed output projection over the
kept VO units. The second is tr(R E), with E the head's effect and R what the queries that are left cannot replace:
what least squares on their Gram leaves of the others, since the keys make up for it (``pruning.unit_pass``,
``pruning.reconstruction``). Errors add up as if they did not know of each other.

Sizes of attention have no order of their own. From all heads, whole, the path goes down step by step: the least
important head, or ``unit_step`` of the least important units of every head, whichever costs least per weight. So a
sparser mask is part of a denser one. The last step of units is never taken: a head without any goes as a whole.

Letters: L layers, N heads, H head dimension, D hidden, W = N * H.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from pruning.calibration import Calibration
from pruning.cost import HeadDims, Shape
from pruning.curves import SENSITIVITY_EXPONENT, least_first
from pruning.encoder import BaseModel
from pruning.masks.attention_curve import AttentionCurve, AttentionSize
from pruning.masks.structures import removed_after
from pruning.masks.units import unit_step
from pruning.reconstruction import least_squares, output_error
from pruning.scores import UnitScores
from pruning.slim.bert import Site
from pruning.unit_pass import UnitStatistics, symmetric_root

UNIT_CURVES_VERSION = 1


def attention_curves(
    base: BaseModel,
    calibration: Calibration,
    statistics: UnitStatistics,
    head_orders: Sequence[Tensor],
    units: UnitScores,
) -> list[AttentionCurve]:
    """Return the path of every layer's attention; ties of units as in ``cost_curves``.

    ``head_orders`` has the heads of every layer, least important first.
    """
    curves = []
    for layer in range(base.shape.num_layers):
        attention = _Attention(
            base.shape,
            head_orders[layer],
            least_first(units.qk_LNH[layer]),
            least_first(units.vo_LNH[layer]),
            base.tensors[f"layers.{layer}.attention_output.weight"],
            calibration.grams[layer, Site.ATTENTION] / calibration.tokens_L[layer],
            statistics.query_grams_LNHH[layer],
            symmetric_root(statistics.effects_LNHH[layer]),
        )
        sizes, errors = _path(attention)
        sensitivity = float(calibration.sensitivity[layer, Site.ATTENTION]) ** SENSITIVITY_EXPONENT
        costs = torch.cummax(sensitivity * torch.tensor(errors, dtype=torch.float64), 0).values
        curves.append(
            AttentionCurve(
                layer=layer,
                head_order=attention.head_order,
                qk_order_NH=attention.qk_order_NH,
                vo_order_NH=attention.vo_order_NH,
                sizes=tuple(sizes),
                costs=tuple(costs.tolist()),
            )
        )
    return curves


@dataclass(frozen=True, slots=True)
class _Attention:
    """One layer's attention, and the orders in which parts of it go."""

    shape: Shape
    head_order: Tensor
    qk_order_NH: Tensor
    vo_order_NH: Tensor
    output_DW: Tensor
    input_gram_WW: Tensor
    query_grams_NHH: Tensor
    effect_roots_NHH: Tensor

    def output_error(self, heads: int, vo: int) -> float:
        """Return the squared error of the sublayer's output with so many heads of so many VO units."""
        kept_N = self.head_order[self.shape.num_heads - heads :].sort().values
        units_NV = self.vo_order_NH[kept_N, self.shape.head_dim - vo :].sort(dim=1).values
        kept = (kept_N[:, None] * self.shape.head_dim + units_NV).flatten()
        if heads and vo == self.shape.head_dim and heads == self.shape.num_heads:
            return 0.0
        cut = least_squares(self.output_DW, self.input_gram_WW, kept) if heads else self.output_DW[:, kept]
        return float(output_error(self.output_DW, cut, self.input_gram_WW, kept))

    def score_error(self, head: int, qk: int) -> float:
        """Return the squared error of the sublayer's output with so many QK units of a head."""
        if qk == self.shape.head_dim:
            return 0.0
        kept = self.qk_order_NH[head, self.shape.head_dim - qk :].sort().values
        root_HH, gram_HH = self.effect_roots_NHH[head], self.query_grams_NHH[head]
        return float(output_error(root_HH, least_squares(root_HH, gram_HH, kept), gram_HH, kept))


def _path(attention: _Attention) -> tuple[list[AttentionSize], list[float]]:
    """Return the sizes from all to nothing, and the error at each."""
    shape = attention.shape
    output_error, score_error = cache(attention.output_error), cache(attention.score_error)

    def error(size: AttentionSize) -> float:
        kept = attention.head_order[shape.num_heads - size.heads :].tolist()
        scores = sum(score_error(head, size.dims.qk) for head in kept)
        return output_error(size.heads, size.dims.vo) + scores

    sizes, errors = [AttentionSize(shape.num_heads, shape.whole)], [0.0]
    while sizes[-1].heads:
        smaller = _next_sizes(sizes[-1], shape)
        found = [error(size) for size in smaller]
        weights = [_weights(sizes[-1], shape) - _weights(size, shape) for size in smaller]
        slopes = [(one - errors[-1]) / gone for one, gone in zip(found, weights, strict=True)]
        best = slopes.index(min(slopes))
        sizes.append(smaller[best])
        errors.append(found[best])
    return sizes, errors


def _next_sizes(size: AttentionSize, shape: Shape) -> list[AttentionSize]:
    """Return what may come after: a head fewer, fewer QK units, fewer VO units."""
    smaller = [AttentionSize(size.heads - 1, size.dims)]
    for qk, vo in ((_fewer(size.dims.qk, shape), size.dims.vo), (size.dims.qk, _fewer(size.dims.vo, shape))):
        if qk and vo:
            smaller.append(AttentionSize(size.heads, HeadDims(qk, vo)))
    return smaller


def _fewer(units: int, shape: Shape) -> int:
    """Return how many units of a head are left after a step; a whole number of steps."""
    return units - removed_after(1, units, unit_step(shape.head_dim))


def _weights(size: AttentionSize, shape: Shape) -> int:
    return size.heads * shape.weights_of_head(size.dims)
