"""The packed forward pass that trains, against the library's own padded one."""

import torch
from torch.nn import functional

from pruning.architectures.bert import LAYER_SLOTS
from pruning.encoder import BaseModel
from pruning.recovery.forward import batch_on, outputs_of
from pruning.recovery.recipe import Recipe
from pruning.recovery.student import Student
from pruning.slim.convert import dense_mask, slim_layers
from pruning.tokenization import Encoded
from tests.pruning.parts import reference_model, sequences_of

CPU = torch.device("cpu")
LENGTHS = (5, 9, 9, 17, 30)
LABELS = torch.tensor([0, 1, 1, 0, 1])


def padded(sequences: list[Encoded]) -> dict[str, torch.Tensor]:
    longest = max(len(sequence.ids) for sequence in sequences)
    rows = [[*sequence.ids] + [0] * (longest - len(sequence.ids)) for sequence in sequences]
    mask = [[1] * len(sequence.ids) + [0] * (longest - len(sequence.ids)) for sequence in sequences]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}


def test_gradients_and_hidden_states_are_those_of_transformers(base: BaseModel) -> None:
    sequences = sequences_of(LENGTHS, vocabulary=base.shape.vocabulary)
    student = Student(base, slim_layers(base, dense_mask(base.shape)), Recipe(steps=1), device=CPU)
    logits, hidden = outputs_of(student.model, batch_on(sequences, CPU))
    functional.cross_entropy(logits, LABELS).backward()

    theirs = reference_model(base)
    answer = theirs(**padded(sequences), output_hidden_states=True)
    functional.cross_entropy(answer.logits, LABELS).backward()
    torch.testing.assert_close(logits, answer.logits, rtol=1e-4, atol=1e-5)

    for mine, state in zip(hidden[:-1], answer.hidden_states[1:-1], strict=True):
        packed = torch.cat([row[:length] for row, length in zip(state, LENGTHS, strict=True)])
        torch.testing.assert_close(mine, packed, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(hidden[-1], answer.hidden_states[-1][:, 0], rtol=1e-4, atol=1e-5)

    parameters = dict(theirs.named_parameters())
    for layer in range(base.shape.num_layers):
        for part in ("weight", "bias"):
            expected = {
                slot: parameters[f"bert.encoder.layer.{layer}.{attribute}.{part}"].grad
                for slot, attribute in LAYER_SLOTS.items()
            }
            fused = [expected.pop(slot) for slot in ("query", "key", "value")]
            expected["qkv"] = torch.cat([gradient for gradient in fused if gradient is not None])
            for slot, gradient in expected.items():
                mine = student.parameters[f"layers.{layer}.{slot}.{part}"].grad
                torch.testing.assert_close(mine, gradient, rtol=1e-3, atol=1e-6, msg=f"{layer}.{slot}.{part}")


def test_no_hook_stays(base: BaseModel) -> None:
    student = Student(base, slim_layers(base, dense_mask(base.shape)), Recipe(steps=1), device=CPU)
    batch = batch_on(sequences_of((4, 6), vocabulary=base.shape.vocabulary), CPU)
    for _ in range(2):
        assert len(outputs_of(student.model, batch)[1]) == base.shape.num_layers
    assert not any(layer._forward_hooks for layer in student.model.layers)
