"""The calibrated cascades among the levels of a ladder, each with its level."""

from collections.abc import Sequence
from dataclasses import dataclass

from pruning.cascade import Cascade
from pruning.cascades import read_cascades
from pruning.variants import Manifest, VariantStore


@dataclass(frozen=True, slots=True)
class LadderCascade:
    """A cascade and the level that answers first in it."""

    level: Manifest
    cascade: Cascade

    @property
    def sparsity(self) -> float:
        """Sparsity of the level, as asked for."""
        return self.level.spec.sparsity


def ladder_cascades(store: VariantStore, ladder: Sequence[str]) -> tuple[LadderCascade, ...]:
    """Return the cascades whose level and dense model are both on the ladder, in its order.

    Raises:
        pruning.errors.StoreError: a level or its cascades cannot be read.
    """
    known = read_cascades(store.root, ladder)
    return tuple(
        LadderCascade(store.manifest(variant_id), cascade)
        for variant_id in ladder
        for cascade in known.get(variant_id, ())
    )
