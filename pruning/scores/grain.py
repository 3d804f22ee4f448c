"""GRAIN on a frozen model: scores of units inside heads, as they are or gathered to heads.

Letters: L layers, N heads, H head dimension, W = N * H, F FFN neurons, O, I outputs and inputs of a linear layer.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from pruning.calibration import Calibration
from pruning.cost import Shape
from pruning.encoder import BaseModel
from pruning.scores.base import StructureScores
from pruning.scores.streamed import Streamed
from pruning.scores.units import UnitScores, by_head
from pruning.spec import Scope
from pruning.unit_pass import UnitStatistics
from pruning.weight_pass import Accumulator, Reading

BETA = 0.998
"""Decay of the scores over batches."""
ALPHA = 0.3
"""Strength of the structure regularisation."""
DENSITY = 0.5
"""Share of all VO units that is taken to stay where it is asked how many stay in a head; ours."""

UNITS = ("qk", "vo", "neurons")


class Grain(Streamed):
    """``EMA_b |sum over a unit of w * dL_b/dw|``, heads times ``tanh(D / 0.3)`` (GRAIN, arXiv 2212.07634), adapted.

    A unit's sum is its mask gradient: of a column of W_O (VO unit) or of the second FFN matrix (neuron), or of a row
    of W_q with its bias (QK unit; the same number from W_k). All own about as many weights, so that neurons and the
    units of heads share a scale; the decay is 0.998, from zero. D is the share of a head's VO units that is left, and
    nudges nearly empty heads to empty.

    Departures: GRAIN scores along 20 epochs of distillation and recomputes D as units go. Here the model is frozen, a
    batch of 32 calibration rows is a step, and D is the share of a head's VO units among the better half of all VO
    units of the encoder. A whole head scores the mean of its QK and VO units. Where units go too, they go as many from
    every kept head of a layer, so that the factor, which all units of a head share, says which head empties first, and
    not which of its units goes. For a single weight, which is no unit of theirs, the score is the same average of
    ``|w * dL_b/dw|``.
    """

    name: ClassVar[str] = "grain"
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.GLOBAL

    def accumulator(self, base: BaseModel) -> Accumulator:
        """Return the averages, before the first batch."""
        return GrainSums(base)

    def structures(self, base: BaseModel, calibration: Calibration) -> StructureScores:
        """Return the mean score of each head's units, regularised, and the score of each neuron."""
        sums = calibration.load_sums()
        qk_LW, vo_LW, neurons_LF = (torch.stack(units_of(base.shape, sums, kind)) for kind in UNITS)
        return StructureScores(regularised_heads(base.shape, qk_LW, vo_LW), neurons_LF)

    def units(self, base: BaseModel, calibration: Calibration, statistics: UnitStatistics) -> UnitScores:
        """Return the regularised score of each unit."""
        sums = calibration.load_sums()
        qk_LNH, vo_LNH = (by_head(base.shape, torch.stack(units_of(base.shape, sums, kind))) for kind in UNITS[:2])
        factor_LN1 = regularisation(vo_LNH)[..., None]
        return UnitScores(qk_LNH * factor_LN1, vo_LNH * factor_LN1)


def regularised_heads(shape: Shape, qk_LW: Tensor, vo_LW: Tensor) -> Tensor:
    """Return the scores [L, N] of heads from those of their units."""
    qk_LNH, vo_LNH = by_head(shape, qk_LW), by_head(shape, vo_LW)
    return torch.cat([qk_LNH, vo_LNH], dim=2).mean(2) * regularisation(vo_LNH)


def regularisation(vo_LNH: Tensor) -> Tensor:
    """Return ``tanh(D / 0.3)`` of every head, [L, N], from the scores of its VO units."""
    left = torch.zeros(vo_LNH.numel())
    best = torch.sort(vo_LNH.flatten(), descending=True, stable=True).indices[: round(DENSITY * vo_LNH.numel())]
    left[best] = 1.0
    return torch.tanh(left.view_as(vo_LNH).mean(2) / ALPHA)


def units_of(shape: Shape, sums: Mapping[str, Tensor], kind: str) -> list[Tensor]:
    """Return the scores of one kind of unit, layer by layer."""
    return [sums[f"layers.{layer}.{kind}"] for layer in range(shape.num_layers)]


class GrainSums:
    """The moving average of every unit's and every weight's score."""

    def __init__(self, base: BaseModel) -> None:
        """Begin with zeros."""
        self._base = base
        self._averages: dict[str, Tensor] = {}

    def add(self, reading: Reading) -> None:
        """Take one batch in."""
        products = {name: weight * reading.gradients[name] for name, weight in self._base.prunable_weights().items()}
        for layer in range(self._base.shape.num_layers):
            prefix = f"layers.{layer}"
            bias = self._base.tensors[f"{prefix}.query.bias"] * reading.gradients[f"{prefix}.query.bias"]
            self._average(f"{prefix}.qk", products[f"{prefix}.query.weight"].sum(1) + bias)
            self._average(f"{prefix}.vo", products[f"{prefix}.attention_output.weight"].sum(0))
            self._average(f"{prefix}.neurons", products[f"{prefix}.ffn_out.weight"].sum(0))
        for name, product_OI in products.items():
            self._average(name, product_OI)

    def _average(self, name: str, value: Tensor) -> None:
        average = self._averages.setdefault(name, torch.zeros_like(value))
        average.lerp_(value.abs(), 1 - BETA)

    def finish(self) -> dict[str, Tensor]:
        """Return the averages."""
        return self._averages
