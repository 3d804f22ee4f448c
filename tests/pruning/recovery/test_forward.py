"""The packed forward pass that trains, against the library's own: every architecture, every head."""

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pruning.architectures import ARCHITECTURES
from pruning.encoder import BaseModel, load_base_model
from pruning.heads import Head
from pruning.recovery.forward import batch_on, outputs_of
from pruning.recovery.recipe import Recipe
from pruning.recovery.student import Student
from pruning.slim.convert import dense_mask, slim_layers
from pruning.tokenization import Encoded
from tests.pruning.parts import sequences_of
from tests.pruning.zoo import library_model, library_outputs, write_model

CPU = torch.device("cpu")
LENGTHS = (5, 9, 9, 17, 30)
FUSED = ("query", "key", "value")


def library_hidden_states(base: BaseModel, sequences: list[Encoded]) -> list[Tensor]:
    """Return what every layer gives, sequence after sequence."""
    inner = library_model(base).base_model
    states = [
        inner(input_ids=torch.tensor([sequence.ids]), output_hidden_states=True).hidden_states for sequence in sequences
    ]  # of one text the token types are 0
    return [torch.cat([layers[index][0] for layers in states]) for index in range(1, base.shape.num_layers + 1)]


def library_gradients(base: BaseModel, model: torch.nn.Module, layer: int, part: str) -> dict[str, Tensor]:
    """Return the gradients of a layer's weights or biases, under our names."""
    architecture = ARCHITECTURES[model.config.model_type]  # type: ignore[union-attr, index]
    within = f"{architecture.prefix}.{architecture.layer.format(layer)}"
    found = {
        slot: model.get_parameter(f"{within}.{module}.{part}").grad for slot, module in architecture.layer_slots.items()
    }
    qkv = torch.cat([gradient for slot, gradient in found.items() if slot in FUSED and gradient is not None])
    others = {slot: gradient for slot, gradient in found.items() if slot not in FUSED and gradient is not None}
    assert len(others) == len(found) - len(FUSED)
    return {"qkv": qkv, **others}


@pytest.mark.parametrize(("kind", "head"), list(product(ARCHITECTURES, Head)))
def test_gradients_and_hidden_states_are_those_of_transformers(tmp_path: Path, kind: str, head: Head) -> None:
    base = load_base_model(write_model(tmp_path, kind, head))
    sequences = sequences_of(LENGTHS, vocabulary=base.shape.vocabulary)
    student = Student(base, slim_layers(base, dense_mask(base.shape)), Recipe(steps=1), device=CPU)
    answers, hidden = outputs_of(student.model, batch_on(sequences, CPU))
    weights = torch.randn(answers.shape, generator=torch.Generator().manual_seed(0))
    (answers * weights).sum().backward()

    model = library_model(base)
    theirs = library_outputs(base, sequences, model=model)
    (theirs * weights).sum().backward()
    torch.testing.assert_close(answers, theirs, rtol=1e-4, atol=1e-4)

    states = library_hidden_states(base, sequences)
    if head.pooled:  # nothing but the first token is computed in the last layer
        states[-1] = states[-1][torch.tensor(LENGTHS).cumsum(0) - torch.tensor(LENGTHS)]
    for mine, state in zip(hidden, states, strict=True):
        torch.testing.assert_close(mine, state, rtol=1e-4, atol=1e-4)

    for layer, part in product(range(base.shape.num_layers), ("weight", "bias")):
        for slot, gradient in library_gradients(base, model, layer, part).items():
            mine_ = student.parameters[f"layers.{layer}.{slot}.{part}"].grad
            torch.testing.assert_close(mine_, gradient, rtol=1e-3, atol=1e-4, msg=f"{layer}.{slot}.{part}")


def test_no_hook_stays(base: BaseModel) -> None:
    student = Student(base, slim_layers(base, dense_mask(base.shape)), Recipe(steps=1), device=CPU)
    batch = batch_on(sequences_of((4, 6), vocabulary=base.shape.vocabulary), CPU)
    for _ in range(2):
        assert len(outputs_of(student.model, batch)[1]) == base.shape.num_layers
    assert not any(layer._forward_hooks for layer in student.model.layers)
