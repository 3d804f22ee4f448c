"""What the student is trained to make small.

Letters: B sequences, T tokens, D hidden, C labels, L layers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pruning.recovery.crew import SOLO, Crew, weight_of
from pruning.recovery.recipe import Recipe


def distillation_loss(
    recipe: Recipe,
    student: tuple[Tensor, Sequence[Tensor]],
    teacher: tuple[Tensor, Sequence[Tensor]],
    task_loss: Tensor,
    crew: Crew = SOLO,
) -> Tensor:
    """Return ``(1 - h) * soft + h * task + w * hidden``, h the recipe's ``label_weight``, w its ``hidden_weight``.

    Of several workers each gets its part; the parts add up to the loss of the batch.

    Args:
        recipe: weights and temperature.
        student: logits [B, C] and the hidden states of every layer, [T, D] ([B, D] of the last).
        teacher: the same of the dense model on the same batch.
        task_loss: the loss of the student's answers by the rows' own labels; this worker's part.
        crew: who computes the other parts.
    """
    (logits_BC, hidden), (target_BC, target_hidden) = student, teacher
    weight = weight_of(len(logits_BC), crew, logits_BC.device)
    loss = (1.0 - recipe.label_weight) * weight * soft_label_loss(logits_BC, target_BC, recipe.temperature)
    if recipe.label_weight:
        loss = loss + recipe.label_weight * task_loss
    if recipe.hidden_weight:
        loss = loss + recipe.hidden_weight * hidden_state_loss(hidden, target_hidden, crew)
    return loss


def soft_label_loss(logits_BC: Tensor, target_BC: Tensor, temperature: float) -> Tensor:
    """Return ``T^2 KL(softmax(target / T) || softmax(logits / T))``, the mean over rows (Hinton et al., 2015).

    GRAIN (Yang et al., 2023) uses the soft cross-entropy, whose gradient is the same; the divergence is 0 where both
    agree. ``T^2`` keeps the gradient's size independent of T.
    """
    student = torch.log_softmax(logits_BC / temperature, dim=1)
    teacher = torch.log_softmax(target_BC / temperature, dim=1)
    return temperature**2 * functional.kl_div(student, teacher, log_target=True, reduction="batchmean")


def hidden_state_loss(hidden: Sequence[Tensor], target: Sequence[Tensor], crew: Crew = SOLO) -> Tensor:
    """Return the squared error of the hidden states over the squared size of the dense ones, the mean over layers.

    After every layer, mapped one to one and by the identity, since a cut leaves depth and hidden width alone. GRAIN
    takes the plain mean square of every second layer through learned maps; that of one layer then outweighs the others
    by its scale. Of several workers each gives its own error over the size of all workers' states.
    """
    (sizes_L,) = crew.total([torch.stack([theirs.square().sum() for theirs in target])])
    errors_L = torch.stack([(mine - theirs).square().sum() for mine, theirs in zip(hidden, target, strict=True)])
    return (errors_L / sizes_L).mean()
