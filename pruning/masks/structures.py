"""Choose the structures to keep under a budget of weights: heads and neurons, or what else there are curves of.

Inside a sublayer an importance score says *which* structures go first. How many go from each sublayer is decided by
what their going costs: every sublayer has a curve of cost over structures removed, and the budget is spent where the
curves are cheapest (a knapsack over their lower convex hulls, solved by taking hull segments in order of slope).
Neurons go in blocks of ``ROUND_TO``, so widths are rounded inside the search.

Why not one global ranking of all scores (Kwon et al., 2022)? A sum of scores cannot see that the last heads and
neurons of a layer are worth more than its first: on the embedded model such a ranking empties whole layers from
70 % on. The cost curves rise steeply there.

Letters: L layers, N heads, F neurons.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Protocol, Self

import torch
from torch import Tensor

from pruning.cost import HeadDims, Shape
from pruning.errors import SpecError
from pruning.masks.units import UnitMask

ROUND_TO = 16
"""Neurons per block: one cache line of float32, a multiple of what the matrix kernels unroll by."""
TOLERANCE = 0.02
"""A mask may miss the sparsity asked for by this much before another one is looked for."""
FILL_VERSION = 1
"""Raised whenever ``_nearest`` chooses otherwise; part of the identity of variants of coarse encoders alone."""


class Kind(StrEnum):
    """The two kinds of structure."""

    HEAD = "head"
    NEURON = "neuron"


class Curve(Protocol):
    """What it costs to remove more and more of one sublayer, step by step."""

    @property
    def layer(self) -> int:
        """Its layer."""

    @property
    def kind(self) -> Kind:
        """What its steps remove."""

    @property
    def costs(self) -> tuple[float, ...]:
        """Cost after 0, 1, 2, ... steps; never falls."""

    @property
    def inside_heads(self) -> bool:
        """Whether units inside heads go too."""

    def weights_after(self, steps: int, shape: Shape) -> int:
        """Return the prunable weights gone after so many steps."""

    def remove(self, steps: int, mask: "StructureMask") -> None:
        """Take from ``mask`` what is gone after so many steps."""


Saved = Callable[[Curve, int], float]
"""What the first so many steps of a curve save."""


@dataclass(frozen=True, slots=True)
class CostCurve:
    """What it costs to remove the least important structures of one sublayer."""

    layer: int
    kind: Kind
    order: Tensor
    """All structures of the sublayer, least important first."""
    step: int
    """Structures that go together: 1 head, or a block of neurons."""
    costs: tuple[float, ...]
    """Cost after 0, 1, 2, ... steps; never falls."""

    def remove(self, steps: int, mask: "StructureMask") -> None:
        """Take from ``mask`` what is gone after so many steps."""
        kept = mask.heads_LN if self.kind is Kind.HEAD else mask.neurons_LF
        kept[self.layer, self.order[: self.gone_after(steps)]] = False

    @property
    def inside_heads(self) -> bool:
        """Never: heads go as a whole."""
        return False

    def whole(self) -> Self:
        """Return the curve of the sublayer that stays as it is, or goes in one step."""
        return replace(self, step=self.order.numel(), costs=(self.costs[0], self.costs[-1]))

    def gone_after(self, steps: int) -> int:
        """Return the structures gone after so many steps. What is left is a whole number of steps, or everything."""
        return removed_after(steps, self.order.numel(), self.step)

    def weights_after(self, steps: int, shape: Shape) -> int:
        """Return the prunable weights gone after so many steps."""
        return self.gone_after(steps) * (shape.head_weights if self.kind is Kind.HEAD else shape.neuron_weights)


def removed_after(steps: int, structures: int, step: int) -> int:
    """Return how many of ``structures`` are gone after ``steps``: the first step takes what does not fill a step."""
    if steps == 0:
        return 0
    return structures - max(0, -(-structures // step) - steps) * step


@dataclass(frozen=True, slots=True)
class StructureMask:
    """True = kept."""

    heads_LN: Tensor
    neurons_LF: Tensor
    units: UnitMask | None = None
    """None: every kept head is whole."""

    def kept_heads(self, layer: int) -> Tensor:
        """Return the indices of the heads kept in a layer, ascending."""
        return self.heads_LN[layer].nonzero().flatten()

    def kept_neurons(self, layer: int) -> Tensor:
        """Return the indices of the neurons kept in a layer, ascending."""
        return self.neurons_LF[layer].nonzero().flatten()

    def kept_dims(self, layer: int, head_dim: int) -> tuple[Tensor, Tensor]:
        """Return the kept rows of W_q and W_k, and those of W_v, of a layer; ascending, head by head."""
        heads_N1 = self.kept_heads(layer)[:, None]
        if self.units is None:
            dims = (heads_N1 * head_dim + torch.arange(head_dim)).flatten()
            return dims, dims
        units = (self.units.qk_LNH[layer], self.units.vo_LNH[layer])
        qk, vo = ((part_NH & self.heads_LN[layer, :, None]).flatten().nonzero().flatten() for part_NH in units)
        return qk, vo

    def head_dims(self, shape: Shape) -> list[HeadDims]:
        """Return the dimensions of the kept heads of every layer; of a layer without heads those of a whole one."""
        firsts = [self.kept_heads(layer)[:1].tolist() for layer in range(shape.num_layers)]
        return [
            shape.whole if self.units is None or not first else self.units.dims_of_head(layer, first[0])
            for layer, first in enumerate(firsts)
        ]

    @property
    def head_counts(self) -> list[int]:
        """Heads kept in each layer."""
        return [int(count) for count in self.heads_LN.sum(1)]

    @property
    def neuron_counts(self) -> list[int]:
        """Neurons kept in each layer."""
        return [int(count) for count in self.neurons_LF.sum(1)]

    def sparsity(self, shape: Shape) -> float:
        """Return the share of prunable weights that are gone."""
        heads = zip(self.head_counts, self.head_dims(shape), strict=True)
        kept = sum(count * shape.weights_of_head(dims) for count, dims in heads)
        return 1.0 - (kept + sum(self.neuron_counts) * shape.neuron_weights) / shape.prunable_weights


@dataclass(frozen=True, slots=True)
class _Step:
    """The going of one head or one block of neurons."""

    curve: int
    number: int
    """Steps taken on this curve once this one is."""
    weights: int


def is_coarse(shape: Shape) -> bool:
    """Tell whether a head or a block of neurons is so large a share of the encoder that a budget can be missed."""
    largest = max(shape.head_weights, min(ROUND_TO, shape.ffn) * shape.neuron_weights)
    return largest > 2 * TOLERANCE * shape.prunable_weights


def structure_mask(curves: Sequence[Curve], shape: Shape, sparsity: float, saved: Saved | None = None) -> StructureMask:
    """Return the mask that removes ``sparsity`` of the prunable weights where the ``curves`` say it costs least.

    It costs least per weight, or per whatever is ``saved``; a step that saves nothing goes last, unless it is free, as
    one is that went in the round before.

    The achieved sparsity differs from the request by at most half a step of the sublayer where the budget ran out,
    and by at most ``TOLERANCE`` wherever blocks of neurons can fill what heads leave open. They cannot where one alone
    is more than twice that: where hidden size times layers is under 67, if FFNs are four times as wide. Unless the
    encoder ``is_coarse``, a sparser mask never keeps what a denser one removed. Ties are broken by the order of the
    curves. Curves of whole sublayers have larger steps than that, those of attention with units inside heads smaller
    ones.

    Raises:
        SpecError: the sparsity is so high that nothing would be left.
    """
    taken = {step.curve: step.number for step in _steps_to_remove(curves, shape, sparsity, saved)}
    return mask_after([taken.get(index, 0) for index in range(len(curves))], curves, shape, sparsity)


def mask_after(steps: Sequence[int], curves: Sequence[Curve], shape: Shape, sparsity: float) -> StructureMask:
    """Return the mask once so many ``steps`` were taken on each of the ``curves``; ``sparsity`` is what was asked for.

    Raises:
        SpecError: nothing would be left.
    """
    mask = StructureMask(
        heads_LN=torch.ones(shape.num_layers, shape.num_heads, dtype=torch.bool),
        neurons_LF=torch.ones(shape.num_layers, shape.ffn, dtype=torch.bool),
        units=UnitMask.whole(shape) if any(curve.inside_heads for curve in curves) else None,
    )
    for taken, curve in zip(steps, curves, strict=True):
        curve.remove(taken, mask)
    if not mask.heads_LN.any() and not mask.neurons_LF.any():
        raise SpecError(f"sparsity {sparsity} leaves no head and no block of {ROUND_TO} neurons; ask for less")
    return mask


def _steps_to_remove(curves: Sequence[Curve], shape: Shape, sparsity: float, saved: Saved | None) -> list[_Step]:
    """Return the steps to take: cheapest first until the budget is met, and where that misses it, ``_nearest``."""
    budget = sparsity * shape.prunable_weights
    path = _cheapest_first(curves, shape, saved or (lambda curve, steps: curve.weights_after(steps, shape)))
    steps = _until(path, budget)
    if abs(_weight(steps) - budget) <= TOLERANCE * shape.prunable_weights:
        return steps
    return _nearest(curves, path, steps, budget, TOLERANCE * shape.prunable_weights)


def _cheapest_first(curves: Sequence[Curve], shape: Shape, saved: Saved) -> list[_Step]:
    """Return all steps of all curves, by the slope of the hull segments that they lie on."""
    segments = sorted(
        (_slope(curve, start, stop, saved), index, start, stop)
        for index, curve in enumerate(curves)
        for start, stop in pairwise(_hull(curve, saved))
    )
    return [
        _Step(index, step + 1, curves[index].weights_after(step + 1, shape) - curves[index].weights_after(step, shape))
        for _, index, start, stop in segments
        for step in range(start, stop)
    ]


def _until(path: Sequence[_Step], budget: float) -> list[_Step]:
    """Return the steps of ``path`` up to the first that would end further from the budget than it began."""
    removed = 0
    for count, step in enumerate(path):
        if removed + step.weights / 2 > budget:
            return list(path[:count])
        removed += step.weights
    return list(path)


def _nearest(
    curves: Sequence[Curve], path: Sequence[_Step], steps: list[_Step], budget: float, tolerance: float
) -> list[_Step]:
    """Return the cheapest steps that meet the budget with any number of heads, or those that come nearest to it.

    Heads go cheapest first, and blocks of neurons, which are smaller, fill the rest. ``steps`` stay if nothing comes
    nearer than they do.
    """
    heads = [step for step in path if curves[step.curve].kind is Kind.HEAD]
    neurons = [step for step in path if curves[step.curve].kind is Kind.NEURON]

    def miss(chosen: Sequence[_Step]) -> float:
        return abs(_weight(chosen) - budget)

    def cost(chosen: Sequence[_Step]) -> float:
        last = {step.curve: step.number for step in chosen}
        return sum(curves[index].costs[number] - curves[index].costs[0] for index, number in last.items())

    joined = [heads[:count] + _until(neurons, budget - _weight(heads[:count])) for count in range(len(heads) + 1)]
    nearer = [chosen for chosen in joined if miss(chosen) < miss(steps)]
    return min(nearer, key=lambda chosen: (max(miss(chosen), tolerance), cost(chosen)), default=steps)


def _weight(steps: Sequence[_Step]) -> int:
    return sum(step.weights for step in steps)


def _slope(curve: Curve, start: int, stop: int, saved: Saved) -> float:
    """Return the cost between two points of a curve over what is saved between them; what is gone already is free."""
    gain, cost = saved(curve, stop) - saved(curve, start), curve.costs[stop] - curve.costs[start]
    if gain > 0.0:
        return cost / gain
    return math.inf if cost > 0.0 else 0.0


def _hull(curve: Curve, saved: Saved) -> list[int]:
    """Return the points of the curve's lower convex hull, from 0 to its end."""
    hull: list[int] = []
    for point in range(len(curve.costs)):
        while len(hull) >= 2 and _slope(curve, hull[-2], hull[-1], saved) >= _slope(curve, hull[-1], point, saved):
            hull.pop()
        hull.append(point)
    return hull
