"""What the student is trained to make small: how far its answers and its hidden states are from the dense model's.

The answers' part is each task's own (``soft_loss`` and ``loss`` in ``pruning.tasks``).

Letters: T tokens, D hidden, L layers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pruning.recovery.crew import SOLO, Crew
from pruning.recovery.recipe import Recipe


def distillation_loss(recipe: Recipe, *, soft: Tensor, task: Tensor, hidden: Tensor) -> Tensor:
    """Return ``(1 - h) * soft + h * task + w * hidden``, h the recipe's ``label_weight``, w its ``hidden_weight``.

    Of several workers each gives its parts of all three, and they add up to the loss of the batch.

    Args:
        recipe: the weights.
        soft: how far the answers are from the dense model's, the mean.
        task: the loss of the answers by the rows' own labels, the mean.
        hidden: how far the hidden states are from the dense model's.
    """
    loss = (1.0 - recipe.label_weight) * soft
    if recipe.label_weight:
        loss = loss + recipe.label_weight * task
    if recipe.hidden_weight:
        loss = loss + recipe.hidden_weight * hidden
    return loss


def hidden_state_loss(hidden: Sequence[Tensor], target: Sequence[Tensor], crew: Crew = SOLO) -> Tensor:
    """Return the squared error of the hidden states over the squared size of the dense ones, the mean over layers.

    After every layer, [T, D], mapped one to one and by the identity, since a cut leaves depth and hidden width alone.
    GRAIN (Yang et al., 2023) takes the plain mean square of every second layer through learned maps; that of one layer
    then outweighs the others by its scale. Of several workers each gives its own error over the size of all workers'
    states.
    """
    (sizes_L,) = crew.total([torch.stack([theirs.square().sum() for theirs in target])])
    errors_L = torch.stack([(mine - theirs).square().sum() for mine, theirs in zip(hidden, target, strict=True)])
    return (errors_L / sizes_L).mean()
