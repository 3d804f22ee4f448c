"""SEVEN on a frozen model."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from pruning.encoder import BaseModel
from pruning.scores.streamed import Streamed
from pruning.spec import Scope
from pruning.weight_pass import Accumulator, Reading

ALPHA_1, ALPHA_2 = 0.8, 0.9
"""Decay of the first and second moment."""
EPSILON = 1e-9


class Seven(Streamed):
    """``S_t = S_t-1 + |w g_t m^_t / v^_t|`` with ``g_t = |dL_t/dw|`` (SEVEN, arXiv 2403.12688), adapted.

    ``m_t = 0.8 m + 0.2 g_t`` and ``v_t = 0.9 v + 0.1 g_t^2``; ``m^_t = m_t / (1 - 0.8^t)`` and
    ``v^_t = sqrt(v_t / (1 - 0.9^t)) + 1e-9``, as in the authors' code. ``m^ / v^`` is at most about 1 and lower where
    gradients are noisy. The paper takes these steps along fine-tuning; here the model is frozen, and batches of 32
    calibration rows take the place of optimizer steps.
    """

    name: ClassVar[str] = "seven"
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.GLOBAL

    def accumulator(self, base: BaseModel) -> Accumulator:
        """Return the recurrences, before the first step."""
        return SevenSums(base.prunable_weights())


class SevenSums:
    """Moments and score of every weight: three numbers each."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Begin with zeros."""
        self._weights = weights
        self._steps = 0
        self._first = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self._second = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self._scores = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def add(self, reading: Reading) -> None:
        """Take one step."""
        self._steps += 1
        for name, weight in self._weights.items():
            moments = self._first[name], self._second[name]
            self._scores[name] += seven_term(weight, reading.gradients[name], *moments, self._steps)

    def finish(self) -> dict[str, Tensor]:
        """Return the scores."""
        return self._scores


def seven_term(weight_OI: Tensor, gradient_OI: Tensor, first_OI: Tensor, second_OI: Tensor, step: int) -> Tensor:
    """Return what step number ``step``, counted from 1, adds to the scores; both moments are taken further in place."""
    size_OI = gradient_OI.abs()
    first_OI.lerp_(size_OI, 1 - ALPHA_1)
    second_OI.lerp_(size_OI.square(), 1 - ALPHA_2)
    mean_OI = first_OI / (1 - ALPHA_1**step)
    root_OI = (second_OI / (1 - ALPHA_2**step)).sqrt_() + EPSILON
    return (weight_OI * size_OI * mean_OI / root_OI).abs_()
