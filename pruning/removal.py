"""The order in which structures of one sublayer go if the others make up for each: greedy Optimal Brain Surgeon.

Let H = X^T D X + r I be the damped Gram matrix of the inputs of an output projection W, D what tokens weigh. To remove
the inputs S of one structure and move all others as well as can be costs

    W_S ([H^-1]_SS)^-1 W_S^T,    summed over the outputs,

more squared output error, and leaves W - W_S ([H^-1]_SS)^-1 [H^-1]_S,: (Hassibi and Stork, 1993; of whole structures,
ZipLM: Kurtic et al., 2023). The cheapest goes, H^-1 is down-dated to the inputs that are left, and so on to the last.
The weights that are left after any number of removals are those of ``least_squares`` on the kept inputs with the same
Gram and ridge, and the costs add up to its squared error (tests hold both). So an order is all that need be kept.

Single inputs go in batches: within one, only the scores are brought up to date, and the columns that the batch
needs; the matrices follow once per batch, and shrink. The order is the one of removal one by one.

Letters: D outputs, W inputs that are left, S inputs of one structure, J inputs that went in the present batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.reconstruction import RIDGE, damping

BATCH = 32
"""Single inputs that go before the matrices follow."""


@dataclass(frozen=True, slots=True)
class RemovalOrder:
    """All structures of one sublayer in the order of their removal."""

    order: Tensor
    """Structure indices, the first to go first."""
    costs: Tensor
    """Squared output error that each removal adds, the ridge's share included, float64; summed over tokens."""


def removal_order(weight_DW: Tensor, gram_WW: Tensor, dims_each: int, ridge: float = RIDGE) -> RemovalOrder:
    """Return the greedy order of a sublayer whose structures have ``dims_each`` neighbouring inputs each.

    Computed in float64. Of structures that cost the same the lower index goes last, as in every other order. A Gram
    that is zero everywhere prefers nobody: then all cost nothing.
    """
    weight_DW, gram_WW = weight_DW.double(), gram_WW.double()
    if not gram_WW.any():
        structures = weight_DW.shape[1] // dims_each
        return RemovalOrder(torch.arange(structures).flip(0), torch.zeros(structures, dtype=torch.float64))
    damped_WW = gram_WW.clone()
    damped_WW.diagonal().add_(damping(gram_WW, ridge))
    inverse_WW = torch.linalg.inv(damped_WW)
    return _one_by_one(weight_DW, inverse_WW) if dims_each == 1 else _as_blocks(weight_DW, inverse_WW, dims_each)


def _as_blocks(weight_DW: Tensor, inverse_WW: Tensor, dims_each: int) -> RemovalOrder:
    """Remove structures of several inputs, the cheapest first; every other's cost is computed anew each time."""
    left = list(range(weight_DW.shape[1] // dims_each))
    order, costs = [], []
    while left:
        blocks = torch.arange(weight_DW.shape[1]).view(len(left), dims_each)
        pivots_NSS = inverse_WW[blocks[:, :, None], blocks[:, None, :]]
        weights_NDS = weight_DW[:, blocks].transpose(0, 1)
        moved_NDS = torch.linalg.solve(pivots_NSS, weights_NDS, left=False)
        cost_N = (moved_NDS * weights_NDS).sum((1, 2))
        place = _cheapest(cost_N)
        order.append(left.pop(place))
        costs.append(cost_N[place])
        stays = torch.ones(weight_DW.shape[1], dtype=torch.bool).index_fill_(0, blocks[place], False)
        rows_SW = inverse_WW[blocks[place]]
        weight_DW = (weight_DW - moved_NDS[place] @ rows_SW)[:, stays]
        inverse_WW = (inverse_WW - rows_SW.T @ torch.linalg.solve(pivots_NSS[place], rows_SW))[stays][:, stays]
    return RemovalOrder(torch.tensor(order), torch.stack(costs))


def _one_by_one(weight_DW: Tensor, inverse_WW: Tensor) -> RemovalOrder:
    """Remove single inputs, the cheapest first, in batches."""
    places_W = torch.arange(weight_DW.shape[1])
    orders, costs = [], []
    while places_W.numel():
        batch = _Batch(weight_DW, inverse_WW)
        for _ in range(min(BATCH, places_W.numel())):
            batch.remove_cheapest()
        orders.append(places_W[torch.tensor(batch.gone)])
        costs += batch.costs
        weight_DW, inverse_WW = batch.applied()
        places_W = places_W[batch.stays_W]
    return RemovalOrder(torch.cat(orders), torch.stack(costs))


class _Batch:
    """Removals whose effect on the matrices is kept aside, as one outer product each."""

    def __init__(self, weight_DW: Tensor, inverse_WW: Tensor) -> None:
        self._weight_DW, self._inverse_WW = weight_DW, inverse_WW
        self._energy_W = weight_DW.square().sum(0)
        self._pivot_W = inverse_WW.diagonal().clone()
        self._columns_WJ = inverse_WW.new_empty(inverse_WW.shape[0], BATCH)
        self._weights_DJ = weight_DW.new_empty(weight_DW.shape[0], BATCH)
        self.stays_W = torch.ones(weight_DW.shape[1], dtype=torch.bool)
        self.gone: list[int] = []
        self.costs: list[Tensor] = []

    def remove_cheapest(self) -> None:
        """Choose the input whose going costs least now, and bring the scores of the others up to date."""
        cost_W = torch.where(self.stays_W, self._energy_W / self._pivot_W, torch.inf)
        place = _cheapest(cost_W)
        columns_WJ, weights_DJ = self._columns_WJ[:, : len(self.gone)], self._weights_DJ[:, : len(self.gone)]
        column_W = self._inverse_WW[:, place] - columns_WJ @ columns_WJ[place]
        weight_D = self._weight_DW[:, place] - weights_DJ @ columns_WJ[place]
        root = column_W[place].sqrt()
        column_W, weight_D = column_W / root, weight_D / root
        overlap_W = weight_D @ self._weight_DW - (weight_D @ weights_DJ) @ columns_WJ.T
        self._energy_W += column_W * (column_W * weight_D.square().sum() - 2 * overlap_W)
        self._pivot_W -= column_W.square()
        self._columns_WJ[:, len(self.gone)], self._weights_DJ[:, len(self.gone)] = column_W, weight_D
        self.stays_W[place] = False
        self.gone.append(place)
        self.costs.append(cost_W[place])

    def applied(self) -> tuple[Tensor, Tensor]:
        """Return (weights, inverse) of the inputs that stay."""
        columns_WJ = self._columns_WJ[self.stays_W, : len(self.gone)]
        weights_DJ = self._weights_DJ[:, : len(self.gone)]
        weight_DW = self._weight_DW[:, self.stays_W] - weights_DJ @ columns_WJ.T
        return weight_DW, self._inverse_WW[self.stays_W][:, self.stays_W] - columns_WJ @ columns_WJ.T


def _cheapest(cost_N: Tensor) -> int:
    """Return the place of the lowest cost; of equal ones the last."""
    return len(cost_N) - 1 - int(cost_N.flip(0).argmin())
