"""What a model learns from another one's answers in place of labels."""

import torch
from torch import Tensor
from torch.nn import functional


def soft_label_loss(logits_XC: Tensor, target_XC: Tensor, temperature: float) -> Tensor:
    """Return ``T^2 KL(softmax(target / T) || softmax(logits / T))``, summed over X texts, tokens or ends.

    Soft labels are Hinton et al.'s (2015). GRAIN (Yang et al., 2023) uses the soft cross-entropy, whose gradient is the
    same; the divergence is 0 where both agree.
    """
    student = torch.log_softmax(logits_XC / temperature, dim=1)
    teacher = torch.log_softmax(target_XC / temperature, dim=1)
    return temperature**2 * functional.kl_div(student, teacher, log_target=True, reduction="sum")
