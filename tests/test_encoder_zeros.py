"""Zeros of an encoder through a fine-tuning: those that were there stay, those that are made are as many as asked."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BertForSequenceClassification

from pruning.masks.weights import unstructured_mask
from pruning.spec import Scope
from scripts.encoder_zeros import Growing, Locked, encoder_matrices
from scripts.fine_tuning import Recipe, fine_tune

ROWS = 24
RECIPE = Recipe(lr=1e-2, layer_decay=1.0, epochs=10, batch_size=4)


@pytest.fixture
def model(tiny_model_dir: Path) -> BertForSequenceClassification:
    return BertForSequenceClassification.from_pretrained(tiny_model_dir)


def zero_out(model: BertForSequenceClassification, sparsity: float) -> dict[str, Tensor]:
    """Make zeros in place; return which weights are kept."""
    weights = encoder_matrices(model)
    kept = unstructured_mask({name: weight.detach().abs() for name, weight in weights.items()}, sparsity)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.mul_(kept[name])
    return kept


def train(model: BertForSequenceClassification, after_step: Callable[[int, int], None]) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 20, (ROWS, 6), generator=generator)

    def loss_of(rows: list[int]) -> Tensor:
        loss: Tensor = model(input_ids=ids[rows], labels=torch.tensor([row % 2 for row in rows])).loss
        return loss

    fine_tune(model, range(ROWS), RECIPE, length_of=lambda row: 6, loss_of=loss_of, seed=0, after_step=after_step)


def test_the_matrices_are_the_prunable_ones(model: BertForSequenceClassification) -> None:
    found = encoder_matrices(model)
    assert len(found) == 12
    assert found["layers.1.ffn_out.weight"] is model.bert.encoder.layer[1].output.dense.weight


def test_locked_zeros_stay_and_all_other_weights_learn(model: BertForSequenceClassification) -> None:
    kept = zero_out(model, 0.7)
    before = {name: weight.detach().clone() for name, weight in encoder_matrices(model).items()}
    locked = Locked(encoder_matrices(model))
    train(model, locked.after_step)
    for name, weight in encoder_matrices(model).items():
        assert torch.equal(weight != 0, kept[name]), name
        assert not torch.equal(weight, before[name]), name
    assert locked.sparsity == pytest.approx(0.7, abs=1e-4)


def test_without_the_lock_zeros_learn(model: BertForSequenceClassification) -> None:
    zero_out(model, 0.7)
    train(model, lambda step, steps: None)
    assert all((weight != 0).all() for weight in encoder_matrices(model).values())


def test_growing_zeros_are_as_many_as_asked_in_every_matrix(model: BertForSequenceClassification) -> None:
    growing = Growing(encoder_matrices(model), target=0.75)
    shares: list[float] = []

    def after_step(step: int, steps: int) -> None:
        growing.after_step(step, steps)
        shares.append(growing.sparsity)

    train(model, after_step)
    assert shares == sorted(shares) and shares[0] == 0.0 and shares[-1] == 0.75
    assert 0.0 < shares[len(shares) // 3] < 0.75
    for weight in encoder_matrices(model).values():
        assert int((weight == 0).sum()) == 0.75 * weight.numel()


def test_what_goes_is_what_is_smallest(model: BertForSequenceClassification) -> None:
    weights = encoder_matrices(model)
    sizes = {name: weight.detach().abs() for name, weight in weights.items()}
    growing = Growing(weights, target=0.5)
    growing.after_step(1, 1)
    expected = unstructured_mask(sizes, 0.5, Scope.LAYERWISE)
    assert all(torch.equal(weights[name] != 0, kept) for name, kept in expected.items())
