"""PLATON on a frozen model."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from pruning.encoder import BaseModel
from pruning.scores.streamed import Streamed
from pruning.spec import Scope
from pruning.weight_pass import Accumulator, Reading

BETA_1, BETA_2 = 0.85, 0.9
"""Decay of the sensitivity and of its uncertainty; the paper tunes the second from 0.85 to 0.95 by task."""


class Platon(Streamed):
    """``S = I- * U-``: smoothed sensitivity times its uncertainty (PLATON, arXiv 2206.12562), adapted.

    ``I_t = |w dL_t/dw|``, ``I-_t = 0.85 I-_t-1 + 0.15 I_t`` and ``U-_t = 0.9 U-_t-1 + 0.1 |I_t - I-_t|``, from zero. U
    is larger where gradients are noisy: the opposite of SEVEN. Departures: the paper takes these steps along
    fine-tuning, here the model is frozen and a batch of 32 calibration rows is a step; and I is of one batch, not the
    mean over a window of 10, since there are some thirty batches in all.
    """

    name: ClassVar[str] = "platon"
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.GLOBAL

    def accumulator(self, base: BaseModel) -> Accumulator:
        """Return the recurrences, before the first step."""
        return PlatonSums(base.prunable_weights())


class PlatonSums:
    """Sensitivity and uncertainty of every weight."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Begin with zeros."""
        self._weights = weights
        self._sensitivity = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self._uncertainty = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def add(self, reading: Reading) -> None:
        """Take one step."""
        for name, weight in self._weights.items():
            platon_step((weight * reading.gradients[name]).abs_(), self._sensitivity[name], self._uncertainty[name])

    def finish(self) -> dict[str, Tensor]:
        """Return ``sensitivity * uncertainty``."""
        return {name: smoothed * self._uncertainty[name] for name, smoothed in self._sensitivity.items()}


def platon_step(now_OI: Tensor, sensitivity_OI: Tensor, uncertainty_OI: Tensor) -> None:
    """Take the averages one step further, in place; ``now_OI`` is ``|w dL/dw|`` of that step."""
    sensitivity_OI.lerp_(now_OI, 1 - BETA_1)
    uncertainty_OI.lerp_((now_OI - sensitivity_OI).abs_(), 1 - BETA_2)
