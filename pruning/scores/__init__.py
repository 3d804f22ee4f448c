"""The importance scorers: one file each, one row each in ``SCORERS``."""

from pruning.errors import SpecError
from pruning.scores.base import Scorer, StructureScores
from pruning.scores.fisher import Fisher
from pruning.scores.magnitude import Magnitude
from pruning.scores.obs import Obs
from pruning.scores.taylor import Taylor

SCORERS: dict[str, Scorer] = {scorer.name: scorer for scorer in (Fisher(), Obs(), Taylor(), Magnitude())}


def scorer_named(name: str) -> Scorer:
    """Return a scorer by name.

    Raises:
        SpecError: there is none of that name.
    """
    if not isinstance(name, str) or name not in SCORERS:
        raise SpecError(f"unknown scorer {name!r}; known: {', '.join(sorted(SCORERS))}")
    return SCORERS[name]


__all__ = ["SCORERS", "Fisher", "Magnitude", "Obs", "Scorer", "StructureScores", "Taylor", "scorer_named"]
