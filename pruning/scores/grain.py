"""GRAIN on a frozen model: scores of units inside heads, as they are or gathered to heads.

Letters: L layers, N heads, H head dimension, W = N * H, F FFN neurons, O, I outputs and inputs of a linear layer.
"""

from collections.abc import Mapping, Sequence
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
        qk, vo, neurons = (units_of(base.shape, sums, kind) for kind in UNITS)
        heads = regularised_heads(base.shape.head_dim, qk, vo, _left(base.shape))
        return StructureScores(torch.stack(heads), torch.stack(neurons))

    def units(self, base: BaseModel, calibration: Calibration, statistics: UnitStatistics) -> UnitScores:
        """Return the regularised score of each unit."""
        sums = calibration.load_sums()
        qk, vo = (units_of(base.shape, sums, kind) for kind in UNITS[:2])
        factor_LN1 = torch.stack(regularisation(base.shape.head_dim, vo, _left(base.shape)))[..., None]
        return UnitScores(*(by_head(base.shape, torch.stack(units)) * factor_LN1 for units in (qk, vo)))


def _left(shape: Shape) -> int:
    """Return how many VO units are taken to stay."""
    return round(DENSITY * shape.num_layers * shape.hidden)


def regularised_heads(head_dim: int, qk: Sequence[Tensor], vo: Sequence[Tensor], left: int) -> list[Tensor]:
    """Return the scores [N] of every layer's heads from those of their units, [W] each; N may differ by layer.

    Args:
        head_dim: units of either kind in a head.
        qk: scores of QK units, layer by layer.
        vo: the same of VO units.
        left: VO units of the whole encoder that are taken to stay.
    """
    heads = []
    for qk_W, vo_W, factor_N in zip(qk, vo, regularisation(head_dim, vo, left), strict=True):
        qk_NH, vo_NH = (units_W.view(-1, head_dim) for units_W in (qk_W, vo_W))
        heads.append(torch.cat([qk_NH, vo_NH], dim=1).mean(1) * factor_N)
    return heads


def regularisation(head_dim: int, vo: Sequence[Tensor], left: int) -> list[Tensor]:
    """Return ``tanh(D / 0.3)`` [N] of every layer's heads; the arguments are those of ``regularised_heads``."""
    flat = torch.cat(list(vo))
    stays = torch.zeros_like(flat)
    stays[torch.sort(flat, descending=True, stable=True).indices[:left]] = 1.0
    parts = stays.split([units_W.numel() for units_W in vo])
    return [torch.tanh(stays_W.view(-1, head_dim).mean(1) / ALPHA) for stays_W in parts]


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
