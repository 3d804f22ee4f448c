"""Logits to label scores, in the shapes of the two classification routes.

Letters: B texts, C labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
"""Scores [B, C]."""


class Activation(StrEnum):
    """What turns logits into scores."""

    SOFTMAX = "softmax"
    """Scores of one text sum to 1: one label is right."""
    SIGMOID = "sigmoid"
    """Each score stands for itself: any number of labels may be right."""
    NONE = "none"
    """The logits as they are."""


def _softmax(logits_BC: Scores) -> Scores:
    exponentials = np.exp(logits_BC - logits_BC.max(axis=1, keepdims=True))
    scores: Scores = exponentials / exponentials.sum(axis=1, keepdims=True)
    return scores


def _sigmoid(logits_BC: Scores) -> Scores:
    # By tanh: exp(-x) would overflow for large negative logits.
    scores: Scores = 0.5 * (1.0 + np.tanh(0.5 * logits_BC))
    return scores


_FUNCTIONS: dict[Activation, Callable[[Scores], Scores]] = {
    Activation.SOFTMAX: _softmax,
    Activation.SIGMOID: _sigmoid,
    Activation.NONE: lambda logits_BC: logits_BC,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """How the scores of one request are computed and shown."""

    activation: Activation | None = None
    """``None``: softmax, or sigmoid for a model with a single label."""
    top_k: int | None = None
    """Labels shown for each text; ``None`` shows all."""


def rank(logits_BC: NDArray[Any], labels: Sequence[str], ranking: Ranking) -> list[list[dict[str, str | float]]]:
    """Return, for each text, its labels with their scores, highest first; equal logits keep the labels' order."""
    activation = ranking.activation or (Activation.SOFTMAX if len(labels) > 1 else Activation.SIGMOID)
    scores_BC = _FUNCTIONS[activation](logits_BC.astype(np.float64))
    # By logits: scores may round to the same number where logits differ.
    order_BC = np.argsort(-logits_BC, axis=1, kind="stable")[:, : ranking.top_k]
    return [
        [{"label": labels[index], "score": scores[index]} for index in order]
        for scores, order in zip(scores_BC.tolist(), order_BC.tolist(), strict=True)
    ]
