"""What removing structures costs: reconstruction error along a scorer's order, weighted by how much the loss minds.

    cost(k) = (E ||dL/dy||^2)^0.5 * E d ||(W - W_k) x||^2

for the ``k`` least important structures of a sublayer gone, W_k the reconstructed output weights over the rest, x the
dense model's inputs and y the sublayer's output; both means are over the calibration tokens, the first with the loss
gradient, the second with what each token weighs (d, ``pruning.capture``). The exponent 0.5 is ours: 1 is the
first-order bound, and trusts gradients at the dense model too far.

Letters: L layers, W width of a site, K kept inputs.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pruning.calibration import Calibration
from pruning.encoder import BaseModel
from pruning.masks.structures import ROUND_TO, CostCurve, Kind, removed_after
from pruning.reconstruction import least_squares, output_error
from pruning.scores import StructureScores
from pruning.slim.bert import Site

CURVES_VERSION = 2
SENSITIVITY_EXPONENT = 0.5
NEURON_POINTS = 16
"""Points at which a neuron curve is solved; between them it is a straight line. Beyond the last but one, where only the
last structures are left and each is worth more than the one before, every step is solved: on a straight line there all
of them would go at once, or none, and deep cuts would empty whole sublayers."""

SUBLAYERS = ((Kind.HEAD, Site.ATTENTION, "attention_output"), (Kind.NEURON, Site.FFN, "ffn_out"))


def cost_curves(
    base: BaseModel,
    calibration: Calibration,
    scores: StructureScores,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[CostCurve]:
    """Return the cost curve of every sublayer along the order of ``scores``; ties go by index, the lower is kept."""
    curves = []
    for layer in range(base.shape.num_layers):
        for kind, site, slot in SUBLAYERS:
            importance = scores.heads_LN[layer] if kind is Kind.HEAD else scores.neurons_LF[layer]
            order = least_first(importance)
            weight_DW = base.tensors[f"layers.{layer}.{slot}.weight"]
            gram_WW = calibration.grams[layer, site] / calibration.tokens_L[layer]
            sensitivity = float(calibration.sensitivity[layer, site]) ** SENSITIVITY_EXPONENT
            errors = _errors(weight_DW, gram_WW, order, 1 if kind is Kind.HEAD else ROUND_TO)
            curves.append(
                CostCurve(
                    layer=layer,
                    kind=kind,
                    order=order,
                    step=1 if kind is Kind.HEAD else ROUND_TO,
                    costs=tuple(sensitivity * error for error in errors),
                )
            )
        progress(layer + 1, base.shape.num_layers)
    return curves


def least_first(importance: Tensor) -> Tensor:
    """Return the indices along the last dimension, least important first; of equals the lower goes last."""
    return torch.sort(importance, descending=True, stable=True).indices.flip(-1)


def _errors(weight_DW: Tensor, gram_WW: Tensor, order: Tensor, step: int) -> list[float]:
    """Return the squared output error after 0, 1, 2, ... steps along ``order``, never falling."""
    structures = order.numel()
    dims_each = weight_DW.shape[1] // structures
    num_steps = -(-structures // step)
    solved = [round(num_steps * point / NEURON_POINTS) for point in range(NEURON_POINTS)]
    solved += range(solved[-1] + 1, num_steps + 1)
    if num_steps <= NEURON_POINTS:
        solved = list(range(num_steps + 1))
    known = torch.tensor(
        [_error(weight_DW, gram_WW, order[removed_after(steps, structures, step) :], dims_each) for steps in solved]
    )
    known = torch.cummax(known, 0).values
    return _interpolated(torch.tensor(solved), known, num_steps)


def _error(weight_DW: Tensor, gram_WW: Tensor, kept_structures: Tensor, dims_each: int) -> float:
    kept = (kept_structures.sort().values[:, None] * dims_each + torch.arange(dims_each)).flatten()
    if kept.numel() == weight_DW.shape[1]:
        return 0.0
    cut_DK = least_squares(weight_DW, gram_WW, kept) if kept.numel() else weight_DW[:, kept]
    return float(output_error(weight_DW, cut_DK, gram_WW, kept))


def _interpolated(points: Tensor, values: Tensor, last: int) -> list[float]:
    """Return the piecewise linear curve through ``(points, values)`` at 0, 1, ..., ``last``."""
    at = torch.arange(last + 1)
    right = torch.searchsorted(points, at).clamp(min=1)
    left = right - 1
    share = (at - points[left]) / (points[right] - points[left])
    curve: list[float] = (values[left] + share * (values[right] - values[left])).tolist()
    return curve
