"""The criteria of gradual cutting: one file each, one row each in a table."""

from pruning.errors import SpecError
from pruning.recovery.criteria.base import StructureCriterion, WeightCriterion
from pruning.recovery.criteria.grain import Grain, GrainWeights
from pruning.recovery.criteria.lifted import Lifted
from pruning.recovery.criteria.magnitude import Magnitude
from pruning.recovery.criteria.mask_gradient import MaskGradient
from pruning.recovery.criteria.platon import Platon
from pruning.recovery.criteria.seven import SevenDynamic
from pruning.recovery.recipe import Criterion

WEIGHT_CRITERIA: dict[Criterion, WeightCriterion] = {
    Criterion.MAGNITUDE: Magnitude(),
    Criterion.SEVEN_DYNAMIC: SevenDynamic(),
    Criterion.PLATON: Platon(),
    Criterion.GRAIN: GrainWeights(),
}
"""Those that rank single weights."""

STRUCTURE_CRITERIA: dict[Criterion, StructureCriterion] = {
    Criterion.MASK_GRADIENT: MaskGradient(),
    **{name: Lifted(criterion) for name, criterion in WEIGHT_CRITERIA.items()},
    Criterion.GRAIN: Grain(),
}
"""Those that rank heads and neurons."""


def weight_criterion(name: Criterion) -> WeightCriterion:
    """Return the criterion of single weights of a name.

    Raises:
        SpecError: it ranks heads and neurons alone.
    """
    if name not in WEIGHT_CRITERIA:
        raise SpecError(
            f"criterion={name.value!r} ranks heads and neurons; for single weights use one of "
            f"{', '.join(WEIGHT_CRITERIA)}"
        )
    return WEIGHT_CRITERIA[name]


__all__ = [
    "STRUCTURE_CRITERIA",
    "WEIGHT_CRITERIA",
    "StructureCriterion",
    "WeightCriterion",
    "weight_criterion",
]
