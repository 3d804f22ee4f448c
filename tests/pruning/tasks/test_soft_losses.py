"""What is learnt from the dense model's answers: the loss by labels, where that model is sure of them."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pruning.data import IGNORED
from pruning.heads import Head
from pruning.tasks import TASKS
from pruning.tasks.soft import soft_label_loss

LENGTHS = [3, 4]
LABELS = {
    Head.LABEL: torch.tensor([2, 0]),
    Head.SCORE: torch.tensor([0.5, -1.0]),
    Head.TAGS: torch.tensor([[1, IGNORED, 0, IGNORED], [IGNORED, 2, 2, IGNORED]]),
    Head.SPAN: torch.tensor([[0, 2], [3, 3]]),
}
WIDTHS = {Head.LABEL: 3, Head.SCORE: 1, Head.TAGS: 3, Head.SPAN: 2}
SURE = 50.0
"""Logits that far apart leave nothing to the other answers."""


def outputs_of(head: Head, seed: int = 0) -> Tensor:
    rows = len(LENGTHS) if head.pooled else sum(LENGTHS)
    return torch.randn(rows, WIDTHS[head], generator=torch.Generator().manual_seed(seed), requires_grad=True)


def sure_of(head: Head) -> Tensor:
    """Return the outputs of a model that is sure of the labels."""
    labels = LABELS[head]
    if head is Head.SCORE:
        return labels[:, None]
    if head is Head.LABEL:
        return SURE * functional.one_hot(labels, 3).float()
    if head is Head.TAGS:
        tokens = torch.cat([labels[0, :3], labels[1]]).clamp(min=0)
        return SURE * functional.one_hot(tokens, 3).float()
    parts = [functional.one_hot(ends, length).float().T for ends, length in zip(labels, LENGTHS, strict=True)]
    return SURE * torch.cat(parts)


def soft(head: Head, outputs: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    return TASKS[head].soft_loss(outputs, target, LABELS[head], LENGTHS, temperature)


def gradient(loss: Tensor, outputs: Tensor) -> Tensor:
    return torch.autograd.grad(loss, outputs)[0]


@pytest.mark.parametrize("head", list(Head))
def test_a_dense_model_that_is_sure_teaches_what_the_labels_do(head: Head) -> None:
    outputs = outputs_of(head)
    ours, theirs = soft(head, outputs, sure_of(head)), TASKS[head].loss(outputs, LABELS[head], LENGTHS)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient(ours, outputs), gradient(theirs, outputs))


@pytest.mark.parametrize("head", list(Head))
def test_who_answers_as_the_dense_model_does_has_nothing_to_learn(head: Head) -> None:
    outputs = outputs_of(head)
    loss = soft(head, outputs, outputs.detach(), 2.0)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(gradient(loss, outputs), torch.zeros_like(outputs), atol=1e-6, rtol=0)


def test_tokens_without_a_label_teach_nothing() -> None:
    outputs, target = outputs_of(Head.TAGS), outputs_of(Head.TAGS, seed=1).detach()
    of_tokens = gradient(soft(Head.TAGS, outputs, target), outputs).abs().sum(1)
    labelled = torch.cat([LABELS[Head.TAGS][0, :3], LABELS[Head.TAGS][1]]) != IGNORED
    assert torch.equal(of_tokens != 0, labelled)


def test_where_an_answer_is_cut_off_the_dense_model_still_teaches() -> None:
    outputs, target = outputs_of(Head.SPAN), outputs_of(Head.SPAN, seed=1).detach()
    cut_off = torch.full((2, 2), IGNORED)
    loss = TASKS[Head.SPAN].soft_loss(outputs, target, cut_off, LENGTHS, 1.0)
    torch.testing.assert_close(loss, soft(Head.SPAN, outputs, target))
    assert TASKS[Head.SPAN].loss(outputs, cut_off, LENGTHS).item() == 0.0


@pytest.mark.parametrize(("head", "answers"), [(Head.LABEL, 2), (Head.SCORE, 2), (Head.TAGS, 4), (Head.SPAN, 2)])
def test_losses_are_sums_over_the_answers(head: Head, answers: int) -> None:
    task = TASKS[head]
    assert task.answers(LABELS[head]) == answers
    twice = torch.cat([LABELS[head], LABELS[head]])
    outputs, target = outputs_of(head), outputs_of(head, seed=1).detach()
    doubled = task.soft_loss(torch.cat([outputs] * 2), torch.cat([target] * 2), twice, LENGTHS * 2, 2.0)
    assert task.answers(twice) == 2 * answers
    torch.testing.assert_close(doubled, 2 * soft(head, outputs, target, 2.0))


def test_soft_labels_have_the_gradient_of_the_soft_cross_entropy() -> None:
    logits, target, temperature = outputs_of(Head.LABEL), outputs_of(Head.LABEL, seed=1).detach(), 2.0
    entropy = functional.cross_entropy(logits / temperature, torch.softmax(target / temperature, 1), reduction="sum")
    ours = gradient(soft_label_loss(logits, target, temperature), logits)
    torch.testing.assert_close(ours, gradient(temperature**2 * entropy, logits))
