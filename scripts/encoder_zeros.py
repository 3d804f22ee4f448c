"""Zeros of an encoder's matrices while it is fine-tuned: locked as they are found, or made one after the other.

Both are masks of the weights that are kept, put on after every step: what is 0 then is 0 in every forward pass.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pruning.architectures import ARCHITECTURES
from pruning.heads import Head
from pruning.masks.weights import mask_sparsity, unstructured_mask
from pruning.recovery.thinning import cubic
from pruning.spec import Scope
from pruning.tensor_sizes import PRUNABLE_SLOTS

CUT_EVERY = 10
"""Steps between two cuts."""
CUT_SHARE = 0.6
"""Share of the steps over which weights go; before the running mean of the weights begins, they are gone."""


def encoder_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the prunable weights of one of the library's models, by slot name."""
    config: Any = model.config
    architecture = ARCHITECTURES[config.model_type]
    num_layers = int(getattr(config, architecture.sizes["num_layers"]))
    return {
        f"{slot}.weight": model.get_parameter(f"{module}.weight")
        for slot, module in architecture.modules(Head.TAGS, num_layers)
        if slot.rpartition(".")[2] in PRUNABLE_SLOTS
    }


@dataclass
class Locked:
    """Pattern lock (Zafrir et al., 2021): the zeros that are there at the beginning are there at the end."""

    weights: dict[str, nn.Parameter]
    kept: dict[str, Tensor] = field(init=False)
    """True = kept."""

    def __post_init__(self) -> None:
        """Take note of the zeros."""
        self.kept = {name: weight.detach() != 0 for name, weight in self.weights.items()}

    @torch.no_grad()
    def after_step(self, step: int, steps: int) -> None:
        """Put the zeros back after step ``step`` of ``steps``."""
        for name, kept in self.kept.items():
            self.weights[name].mul_(kept)

    @property
    def sparsity(self) -> float:
        """Share of the prunable weights that are zeros."""
        return mask_sparsity(self.kept)


@dataclass
class Growing(Locked):
    """Gradual magnitude pruning (Zhu and Gupta, 2017): the smallest weights of every matrix go while it trains."""

    target: float = 0.0
    _over: float = 0.0

    @torch.no_grad()
    def after_step(self, step: int, steps: int) -> None:
        """Make the zeros that are due after step ``step`` of ``steps``, then keep them; none ever comes back."""
        over = min(1.0, step / (CUT_SHARE * steps))
        if self._over < 1.0 and (step % CUT_EVERY == 0 or over == 1.0):
            self._over = over
            sizes = {name: weight.detach().abs() for name, weight in self.weights.items()}
            self.kept = unstructured_mask(sizes, self.target * cubic(over), Scope.LAYERWISE)
        super().after_step(step, steps)
