"""What it costs to make the attention of one layer smaller, by heads and by the units inside them.

Letters: N heads, H head dimension.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from pruning.cost import HeadDims, Shape
from pruning.masks.structures import Kind, StructureMask


class AttentionSize(NamedTuple):
    """What is left of the attention of a layer."""

    heads: int
    dims: HeadDims
    """Units that each of these heads keeps."""


@dataclass(frozen=True, slots=True)
class AttentionCurve:
    """One path from all heads, whole, to none: at each step a head goes, or some units of every head that is left."""

    layer: int
    head_order: Tensor
    """Heads [N], least important first."""
    qk_order_NH: Tensor
    """QK units of every head, least important first."""
    vo_order_NH: Tensor
    """The same of VO units."""
    sizes: tuple[AttentionSize, ...]
    """What is left after 0, 1, 2, ... steps; never more than before."""
    costs: tuple[float, ...]
    """Cost then; never falls."""

    @property
    def kind(self) -> Kind:
        """Heads: where these cannot meet a budget, neurons fill the rest."""
        return Kind.HEAD

    @property
    def inside_heads(self) -> bool:
        """Always."""
        return True

    def weights_after(self, steps: int, shape: Shape) -> int:
        """Return the prunable weights gone after so many steps."""
        heads, dims = self.sizes[steps]
        return shape.num_heads * shape.head_weights - heads * shape.weights_of_head(dims)

    def remove(self, steps: int, mask: StructureMask) -> None:
        """Take from ``mask``, which has units, what is gone after so many steps."""
        assert mask.units is not None
        heads, dims = self.sizes[steps]
        mask.heads_LN[self.layer, self.head_order[: len(self.head_order) - heads]] = False
        for kept_LNH, order_NH, count in (
            (mask.units.qk_LNH, self.qk_order_NH, dims.qk),
            (mask.units.vo_LNH, self.vo_order_NH, dims.vo),
        ):
            kept_LNH[self.layer].scatter_(1, order_NH[:, : order_NH.shape[1] - count], False)
