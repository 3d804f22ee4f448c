"""Looks at one batch in the student, from which criteria learn what matters to the loss.

Letters: N heads, F neurons of a layer, R rows, W width.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from pruning.recovery.student import Student
from pruning.slim.bert import Site, Tap


class Watch(Protocol):
    """One look."""

    tap: Tap | None
    """What the batch is to pass on its way."""

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        """Return the gradient of a loss of the batch, by the name of what was looked at; the graph stays."""


class StructureGates:
    """Masks of ones, one per head and neuron, multiplied into every output projection's input."""

    def __init__(self, student: Student) -> None:
        """Make the gates of a student."""
        self._head_dim = student.head_dim
        heads, neurons = student.counts()
        self._heads = [torch.ones(count, device=student.device, requires_grad=True) for count in heads]
        self._neurons = [torch.ones(count, device=student.device, requires_grad=True) for count in neurons]
        self.tap: Tap | None = self._through

    def _through(self, layer: int, site: Site, values_RW: Tensor, sequence_R: Tensor) -> Tensor:
        """Pass inputs of output projections through their gates."""
        if site is Site.ATTENTION:
            return values_RW * self._heads[layer].repeat_interleave(self._head_dim)
        if site is Site.FFN:
            return values_RW * self._neurons[layer]
        return values_RW

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        """Return the gradient of ``loss`` at every gate: ``layers.<n>.heads.gate`` [N], ``.neurons.gate`` [F]."""
        gates = {f"layers.{layer}.heads.gate": gate for layer, gate in enumerate(self._heads)}
        gates |= {f"layers.{layer}.neurons.gate": gate for layer, gate in enumerate(self._neurons)}
        # An empty layer does not pass its gates.
        found = torch.autograd.grad(loss, list(gates.values()), retain_graph=True, allow_unused=True)
        return {
            name: torch.zeros_like(gate) if one is None else one
            for (name, gate), one in zip(gates.items(), found, strict=True)
        }


class WeightGradients:
    """The gradients of some of the student's own tensors; of none, nothing is computed."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Look at ``tensors``."""
        self._tensors = tensors
        self.tap: Tap | None = None

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        """Return the gradient of ``loss`` for every tensor, by its name."""
        if not self._tensors:
            return {}
        found = torch.autograd.grad(loss, list(self._tensors.values()), retain_graph=True)
        return dict(zip(self._tensors, found, strict=True))
