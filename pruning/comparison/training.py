"""How the cuts of one draw of rows are distilled, where a comparison does so."""

from dataclasses import dataclass

from torch import Tensor

from pruning.capture import Progress
from pruning.data import LabelledSet
from pruning.recovery.distillation import trained_cut
from pruning.recovery.recipe import Recipe
from pruning.spec import PruneSpec
from pruning.workbench import Workbench

SHARES = 1000
"""Steps in which a training tells its progress: what bounds it may be steps or minutes."""


@dataclass(frozen=True, slots=True)
class Training:
    """By which recipe, and on which rows."""

    recipe: Recipe
    rows: LabelledSet

    @property
    def digest(self) -> str:
        """Of all that training depends on beside the cut that it begins with."""
        return self.recipe.digest_with(self.rows.digest)

    def layers_of(self, bench: Workbench, spec: PruneSpec, progress: Progress) -> dict[str, Tensor]:
        """Return the encoder layers that training leaves of a cut: from the store, or trained and kept now.

        One that was interrupted goes on. What a served ``"recover": "distill"`` stands for does not change.

        Raises:
            SpecError, DataError, CacheError, RecoveryError, StoreError: as ``pruning.recovery.distillation.recover``.
        """
        found = trained_cut(
            bench, spec, self.rows, self.recipe, resume=True,
            report=lambda went: progress(int(SHARES * went.share), SHARES),
        )  # fmt: skip
        return bench.recovered.load(found)
