"""Optimal Brain Surgeon over whole structures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.calibration import Calibration
from pruning.encoder import BaseModel
from pruning.errors import SpecError
from pruning.removal import removal_order
from pruning.scores.base import StructureScores
from pruning.scores.units import UnitScores, by_head
from pruning.slim.bert import Site
from pruning.spec import Scope
from pruning.unit_pass import UnitStatistics, symmetric_root


@dataclass(frozen=True, slots=True)
class Obs:
    """Output error of the sublayer once a structure and all that go before it are gone (Kurtic et al., 2023, sec. 3.1).

    Structures of a sublayer are removed greedily, each time the one whose inputs the others replace best, and the
    others' output weights move to make up for it (``pruning.removal``). The score of a structure is the squared output
    error per token, weighed, ridge included, right after its removal; it never falls along the order. No labels and no
    gradients enter. Departures: one order from the dense model's inputs serves every sparsity, where the paper may
    compute curvature anew; the ridge is that of the reconstruction, in place of one added only if needed.
    """

    name: ClassVar[str] = "obs"
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.ROW

    def structures(self, base: BaseModel, calibration: Calibration) -> StructureScores:
        """Return the error after the removal of every head and neuron, float64: rounding must not make ties."""
        return StructureScores(
            heads_LN=_scores_of(base, calibration, "attention_output", Site.ATTENTION, base.shape.head_dim),
            neurons_LF=_scores_of(base, calibration, "ffn_out", Site.FFN, 1),
        )

    def units(self, base: BaseModel, calibration: Calibration, statistics: UnitStatistics) -> UnitScores:
        """Return the error after the removal of every unit, float64.

        VO units are the inputs of the output projection, of all heads together. QK units are those of a head's queries,
        whose errors are weighed by what keys and values make of them (``pruning.unit_pass``); the keys make up.
        """
        shape = base.shape
        roots = symmetric_root(statistics.effects_LNHH)
        qk = [
            _errors(root_HH, gram_HH, 1)
            for root_HH, gram_HH in zip(roots.flatten(0, 1), statistics.query_grams_LNHH.flatten(0, 1), strict=True)
        ]
        return UnitScores(
            qk_LNH=torch.stack(qk).view(shape.num_layers, shape.num_heads, shape.head_dim),
            vo_LNH=by_head(shape, _scores_of(base, calibration, "attention_output", Site.ATTENTION, 1)),
        )

    def weights(self, base: BaseModel, calibration: Calibration) -> Mapping[str, Tensor]:
        """Refuse: a single weight's error needs the inputs of every matrix, and only the outputs' are kept.

        Raises:
            SpecError: always.
        """
        raise SpecError("scorer 'obs' ranks whole heads and neurons; for single weights use 'fisher' or another scorer")


def _scores_of(base: BaseModel, calibration: Calibration, slot: str, site: Site, dims_each: int) -> Tensor:
    """Return the errors of all structures of one kind, each of ``dims_each`` neighbouring inputs, layer by layer."""
    return torch.stack(
        [
            _errors(
                base.tensors[f"layers.{layer}.{slot}.weight"],
                calibration.grams[layer, site] / calibration.tokens_L[layer],
                dims_each,
            )
            for layer in range(base.shape.num_layers)
        ]
    )


def _errors(weight_DW: Tensor, gram_WW: Tensor, dims_each: int) -> Tensor:
    """Return the summed cost up to each structure's removal, by structure."""
    removal = removal_order(weight_DW, gram_WW, dims_each)
    errors = torch.empty_like(removal.costs)
    errors[removal.order] = removal.costs.clamp(min=0).cumsum(0)
    return errors
