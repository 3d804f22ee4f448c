"""Cascades: a sparse level answers what it is sure of, and the dense model the rest. Arithmetic alone.

How sure a level is of a text is its margin: the largest softmax score less the second largest (Park et al., 2015:
Big/Little networks). A text whose margin lies below the threshold goes to the dense model. Thresholds come from
training rows, whatever their labels: the lowest that reaches an agreement with the dense model. What a cascade is worth
is read on evaluation rows.

Letters: N texts, C labels.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.evaluation import Evaluation

AGREEMENTS = (0.98, 0.99, 0.995)
"""Agreements with the dense model that thresholds are calibrated for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """A level and the dense model behind it, for one agreement."""

    cascade_id: str
    """16 hex digits."""
    variant_id: str
    """The level that answers first."""
    dense_id: str
    """What answers the rest."""
    target: float
    """Agreement that the threshold was calibrated for."""
    threshold: float
    """Margin in [0, 1] below which a text goes to the dense model."""
    calibration_agreement: float
    """What it reached on the rows of the calibration."""
    calibration_rows: int
    calibration_digest: str
    """Which rows these were."""
    apart: bool
    """Whether they took no part in the cut; the agreement on rows that did is too high for others."""
    escalated: float
    """Share of the evaluation rows that go to the dense model."""
    evaluation: Evaluation
    """What the cascade is worth on them."""


def margins(logits_NC: NDArray[Any]) -> NDArray[np.float64]:
    """Return for each text its largest softmax score less the second largest, in [0, 1]; of two labels or more."""
    shifted_NC = logits_NC.astype(np.float64) - logits_NC.max(1, keepdims=True)
    scores_NC = np.exp(shifted_NC)
    scores_NC /= scores_NC.sum(1, keepdims=True)
    second_N, best_N = np.partition(scores_NC, (-2, -1), axis=1)[:, -2:].T
    margin_N: NDArray[np.float64] = best_N - second_N
    return margin_N


def unsure(logits_NC: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """Return for each text whether it goes to the dense model."""
    return margins(logits_NC) < threshold


def lowest_threshold(margins_N: NDArray[np.float64], agrees_N: NDArray[np.bool_], target: float) -> float:
    """Return the lowest threshold with which a cascade agrees with the dense model on ``target`` of the texts.

    A text that is handed on agrees. So all but the ``(1 - target) N`` surest of the texts that do not agree must be
    handed on, and with them whatever is no surer than they are.
    """
    allowed = math.floor((1.0 - target) * len(margins_N) + 1e-9)
    apart = np.sort(margins_N[~agrees_N])[::-1]
    return float(np.nextafter(apart[allowed], math.inf)) if len(apart) > allowed else 0.0
