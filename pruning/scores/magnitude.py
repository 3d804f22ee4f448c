"""Magnitude: no data, the weights are the scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.calibration import Calibration
from pruning.encoder import BaseModel
from pruning.scores.base import StructureScores


@dataclass(frozen=True, slots=True)
class Magnitude:
    """Absolute weight, ``|w|``, summed over the weights that a structure owns (Han et al., 2015; Li et al., 2017)."""

    name: ClassVar[str] = "magnitude"
    version: ClassVar[int] = 1

    def structures(self, base: BaseModel, calibration: Calibration) -> StructureScores:
        """Sum ``|w|`` over a head's rows of Q, K, V and columns of O, and over a neuron's row and column."""
        heads, neurons = [], []
        shape = base.shape
        for layer in range(shape.num_layers):
            rows_W = sum(
                base.tensors[f"layers.{layer}.{slot}.weight"].abs().sum(1) for slot in ("query", "key", "value")
            )
            width_W = rows_W + base.tensors[f"layers.{layer}.attention_output.weight"].abs().sum(0)
            heads.append(width_W.view(shape.num_heads, shape.head_dim).sum(1))
            row_F = base.tensors[f"layers.{layer}.ffn_in.weight"].abs().sum(1)
            neurons.append(row_F + base.tensors[f"layers.{layer}.ffn_out.weight"].abs().sum(0))
        return StructureScores(torch.stack(heads), torch.stack(neurons))

    def weights(self, base: BaseModel, calibration: Calibration) -> Mapping[str, Tensor]:
        """Return ``|w|``."""
        return {name: weight.abs() for name, weight in base.prunable_weights().items()}
