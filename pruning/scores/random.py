"""Random scores: the control that every criterion must beat."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.calibration import Calibration
from pruning.encoder import BaseModel
from pruning.files import digest_of
from pruning.scores.base import StructureScores
from pruning.spec import Scope


@dataclass(frozen=True, slots=True)
class Random:
    """Uniform numbers from 0 to 1, seeded with the model's digest and the seed of the calibration rows.

    So they are the same whenever one model is scored, and a comparison over several draws of rows sees several orders:
    what a single one is worth differs by points.
    """

    name: ClassVar[str] = "random"
    version: ClassVar[int] = 2
    scope: ClassVar[Scope] = Scope.GLOBAL

    def structures(self, base: BaseModel, calibration: Calibration) -> StructureScores:
        """Return one number for every head and neuron."""
        shape, generator = base.shape, self._generator(base, calibration, "structures")
        heads_LN = torch.rand(shape.num_layers, shape.num_heads, generator=generator)
        return StructureScores(heads_LN, torch.rand(shape.num_layers, shape.ffn, generator=generator))

    def weights(self, base: BaseModel, calibration: Calibration) -> Mapping[str, Tensor]:
        """Return one number for every weight."""
        generator = self._generator(base, calibration, "weights")
        return {name: torch.rand(weight.shape, generator=generator) for name, weight in base.prunable_weights().items()}

    def _generator(self, base: BaseModel, calibration: Calibration, what: str) -> torch.Generator:
        return torch.Generator().manual_seed(int(digest_of([base.digest, calibration.key.seed, what])[:15], 16))
