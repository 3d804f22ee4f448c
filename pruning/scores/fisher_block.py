"""Block-diagonal empirical Fisher information of the masks: structures that cancel each other go together.

Letters: M micro-batches, U structures of a sublayer, L layers, N heads, F FFN neurons.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.calibration import Calibration
from pruning.encoder import BaseModel
from pruning.scores.base import StructureScores
from pruning.scores.fisher import Fisher
from pruning.scores.units import UnitScores
from pruning.spec import Scope
from pruning.unit_pass import UnitStatistics


@dataclass(frozen=True, slots=True)
class FisherBlock:
    """Rank in the order that removes, one by one, what least raises ``sum_b (sum over the removed of dL_b/dm)^2``.

    That sum is the block-diagonal Fisher objective of a sublayer (Kwon et al., 2022, section 4, rearrangement), which
    ``fisher`` takes for diagonal: what two structures do to the loss may cancel. Departure: Kwon swaps structures of a
    finished mask until none helps; here the same objective gives an order, greedily, so that one order serves every
    sparsity and sparser masks are part of denser ones. A score is a rank in (0, 1]. Single weights score as by
    ``fisher``.
    """

    name: ClassVar[str] = "fisher_block"
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.GLOBAL

    def structures(self, base: BaseModel, calibration: Calibration) -> StructureScores:
        """Return the ranks of the heads and of the neurons of every layer, 1 for the last to go."""
        heads = [removal_ranks(layer_MN) for layer_MN in calibration.head_gradients_MLN.unbind(1)]
        neurons = [removal_ranks(layer_MF) for layer_MF in calibration.neuron_gradients_MLF.unbind(1)]
        return StructureScores(torch.stack(heads), torch.stack(neurons))

    def units(self, base: BaseModel, calibration: Calibration, statistics: UnitStatistics) -> UnitScores:
        """Return the ranks of the units of every head, 1 for the last to go."""
        gradients = (statistics.qk_gradients_MLNH, statistics.vo_gradients_MLNH)
        return UnitScores(*(_ranks_within_heads(part_MLNH) for part_MLNH in gradients))

    def weights(self, base: BaseModel, calibration: Calibration) -> Mapping[str, Tensor]:
        """Return ``w^2 * mean_b (dL/dw)^2`` of every weight."""
        return Fisher().weights(base, calibration)


def _ranks_within_heads(gradients_MLNH: Tensor) -> Tensor:
    ranks = [removal_ranks(head_MH) for head_MH in gradients_MLNH.flatten(1, 2).unbind(1)]
    return torch.stack(ranks).view(gradients_MLNH.shape[1:])


def removal_ranks(gradients_MU: Tensor) -> Tensor:
    """Return the rank in (0, 1] of every structure in the greedy order of removal; of equal ones the higher goes first.

    Removing u after a set with summed gradients r raises ``||r||^2`` by ``2 r.g_u + ||g_u||^2``.
    """
    gradients_UM = gradients_MU.double().T.contiguous()
    num_structures = gradients_UM.shape[0]
    raises_U = gradients_UM.square().sum(1)
    ranks_U = torch.zeros(num_structures)
    for removed in range(num_structures):
        last_first = raises_U.flip(0)
        chosen = num_structures - 1 - int(last_first.argmin())
        ranks_U[chosen] = (removed + 1) / num_structures
        raises_U += 2.0 * (gradients_UM @ gradients_UM[chosen])
        raises_U[chosen] = torch.inf
    return ranks_U
