"""Losses without labels: the squares of their gradients add up to the true Fisher information."""

import itertools

import pytest
import torch
from torch import Tensor

from pruning.heads import Head
from pruning.tasks import TASKS

LENGTHS = [3, 4]
DRAWS = 4000


def outputs_of(head: Head, labels: int) -> Tensor:
    rows = len(LENGTHS) if head.pooled else sum(LENGTHS)
    return torch.randn(rows, labels, generator=torch.Generator().manual_seed(0), requires_grad=True)


def squares(head: Head, outputs: Tensor, seed: int) -> Tensor:
    losses = TASKS[head].own_losses(outputs, LENGTHS, torch.Generator().manual_seed(seed))
    gradients = [torch.autograd.grad(loss, outputs, retain_graph=True)[0] for loss in losses]
    return torch.stack(gradients).square().sum(0)


def true_fisher(head: Head, outputs: Tensor) -> Tensor:
    """Return ``E (d log p / d outputs)^2``: p (1 - p) of every logit of a softmax, 1 of a normal mean."""
    if head is Head.SCORE:
        return torch.ones_like(outputs)
    parts = outputs.detach().split(LENGTHS) if head is Head.SPAN else [outputs.detach()]
    p = torch.cat([part.softmax(0 if head is Head.SPAN else 1) for part in parts])
    return p * (1 - p)


@pytest.mark.parametrize(("head", "seed"), list(itertools.product([Head.LABEL, Head.SCORE, Head.TAGS], range(3))))
def test_the_squares_are_the_fisher_information_of_the_outputs_whatever_the_signs(head: Head, seed: int) -> None:
    outputs = outputs_of(head, 1 if head is Head.SCORE else 3)
    torch.testing.assert_close(squares(head, outputs, seed), true_fisher(head, outputs))


def test_the_squares_of_drawn_answers_are_the_fisher_information_in_the_mean() -> None:
    outputs = outputs_of(Head.SPAN, 2)
    mean = torch.stack([squares(Head.SPAN, outputs, seed) for seed in range(DRAWS)]).mean(0)
    torch.testing.assert_close(mean, true_fisher(Head.SPAN, outputs), atol=0.02, rtol=0)
