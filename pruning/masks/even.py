"""Cut every layer to the same widths: the control for an allocation that asks where a cut costs least."""

from collections.abc import Sequence
from itertools import product

from pruning.cost import Shape
from pruning.masks.structures import TOLERANCE, CostCurve, Kind, StructureMask, mask_after

EVEN_VERSION = 1
"""Raised whenever the same curves and sparsity give another mask."""


def even_mask(curves: Sequence[CostCurve], shape: Shape, sparsity: float) -> StructureMask:
    """Return the mask that removes ``sparsity`` of the prunable weights by the same widths in every layer.

    The share of heads that goes is the one nearest to ``sparsity`` with which blocks of neurons can meet it within
    ``TOLERANCE``, and as many blocks go as come nearest to it. If none can, what comes nearest is taken. The order of
    the ``curves`` says which structures go; their costs play no part.

    Raises:
        SpecError: the sparsity is so high that nothing would be left.
    """
    head, neuron = (next(curve for curve in curves if curve.kind is kind) for kind in Kind)
    budget = sparsity * shape.prunable_weights / shape.num_layers
    tolerance = TOLERANCE * shape.prunable_weights / shape.num_layers

    def badness(steps: tuple[int, int]) -> tuple[float, float, float]:
        miss = abs(head.weights_after(steps[0], shape) + neuron.weights_after(steps[1], shape) - budget)
        return max(miss, tolerance), abs(head.gone_after(steps[0]) / shape.num_heads - sparsity), miss

    best = min(product(range(len(head.costs)), range(len(neuron.costs))), key=badness)
    return mask_after([best[0] if curve.kind is Kind.HEAD else best[1] for curve in curves], curves, shape, sparsity)
