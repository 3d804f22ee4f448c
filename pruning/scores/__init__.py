"""The importance scorers: one file each, one row each in ``SCORERS``."""

from pruning.errors import SpecError
from pruning.scores.base import Scorer, StructureScores
from pruning.scores.cam_cut import CamCut, CamCutShift
from pruning.scores.fisher import Fisher
from pruning.scores.fisher_block import FisherBlock
from pruning.scores.fisher_label_free import FisherLabelFree
from pruning.scores.grain import Grain
from pruning.scores.magnitude import Magnitude
from pruning.scores.michel import Michel
from pruning.scores.obs import Obs
from pruning.scores.platon import Platon
from pruning.scores.random import Random
from pruning.scores.sensitivity import Sensitivity
from pruning.scores.seven import Seven
from pruning.scores.smooth_cam_cut import SmoothCamCut, SmoothCamCutAbsolute
from pruning.scores.smooth_cut import SmoothCut, SmoothCutAbsolute
from pruning.scores.streamed import Streamed
from pruning.scores.taylor import Taylor
from pruning.scores.units import UnitScores, unit_scores
from pruning.scores.wanda import Wanda
from pruning.spec import IMPORTED

SCORERS: dict[str, Scorer] = {
    scorer.name: scorer
    for scorer in (
        Fisher(),
        FisherBlock(),
        FisherLabelFree(),
        Obs(),
        Taylor(),
        Michel(),
        Grain(),
        Magnitude(),
        Sensitivity(),
        Wanda(),
        CamCut(),
        CamCutShift(),
        SmoothCut(),
        SmoothCutAbsolute(),
        SmoothCamCut(),
        SmoothCamCutAbsolute(),
        Seven(),
        Platon(),
        Random(),
    )
}

CHOICES = (*SCORERS, IMPORTED)
"""All that a cut may be chosen by."""


def scorer_named(name: str) -> Scorer:
    """Return a scorer by name.

    Raises:
        SpecError: there is none of that name.
    """
    if not isinstance(name, str) or name not in SCORERS:
        raise SpecError(f"unknown scorer {name!r}; known: {', '.join(sorted(SCORERS))}")
    return SCORERS[name]


def choice_named(name: str) -> str:
    """Return what a cut is chosen by: the name of a scorer, or ``imported``.

    Raises:
        SpecError: it is neither.
    """
    return name if name == IMPORTED else scorer_named(name).name


__all__ = [
    "CHOICES",
    "SCORERS",
    "CamCut",
    "CamCutShift",
    "Fisher",
    "FisherBlock",
    "FisherLabelFree",
    "Grain",
    "Magnitude",
    "Michel",
    "Obs",
    "Platon",
    "Random",
    "Scorer",
    "Sensitivity",
    "Seven",
    "SmoothCamCut",
    "SmoothCamCutAbsolute",
    "SmoothCut",
    "SmoothCutAbsolute",
    "Streamed",
    "StructureScores",
    "Taylor",
    "UnitScores",
    "Wanda",
    "choice_named",
    "scorer_named",
    "unit_scores",
]
