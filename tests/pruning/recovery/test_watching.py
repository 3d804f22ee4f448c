"""What is seen of the student while it learns."""

import torch
from torch import Tensor
from torch.nn import functional

from pruning.encoder import BaseModel
from pruning.recovery.forward import batch_on, outputs_of
from pruning.recovery.recipe import Recipe
from pruning.recovery.student import Student
from pruning.recovery.watching import StructureGates, WeightGradients
from pruning.slim.convert import dense_mask, slim_layers
from tests.pruning.parts import mask_of, sequences_of
from tests.pruning.recovery.conftest import CPU


def task_loss(student: Student, tap: object, vocabulary: int) -> Tensor:
    batch = batch_on(sequences_of((5, 8, 13), vocabulary=vocabulary), CPU)
    return functional.cross_entropy(outputs_of(student.model, batch, tap)[0], torch.tensor([0, 1, 1]))  # type: ignore[arg-type]


def test_a_gates_gradient_is_that_of_the_structures_output_weights(base: BaseModel) -> None:
    """The sum over a structure's output weights of weight times gradient."""
    student = Student(base, slim_layers(base, dense_mask(base.shape)), Recipe(steps=1), device=CPU)
    gates = StructureGates(student)
    loss = task_loss(student, gates.tap, base.shape.vocabulary)
    seen = gates.gradients(loss)
    loss.backward()

    def by_weight(name: str) -> Tensor:
        weight = student.parameters[name]
        assert weight.grad is not None
        return (weight * weight.grad).sum(0)

    for layer in range(base.shape.num_layers):
        heads = by_weight(f"layers.{layer}.attention_output.weight").view(base.shape.num_heads, -1).sum(1)
        neurons = by_weight(f"layers.{layer}.ffn_out.weight")
        torch.testing.assert_close(seen[f"layers.{layer}.heads.gate"], heads, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(seen[f"layers.{layer}.neurons.gate"], neurons, rtol=1e-3, atol=1e-6)


def test_a_layer_without_heads_or_neurons_has_empty_gates(base: BaseModel) -> None:
    layers = slim_layers(base, mask_of(base.shape, [[], [0, 2]], [range(16), []]))
    student = Student(base, layers, Recipe(steps=1), device=CPU)
    gates = StructureGates(student)
    seen = gates.gradients(task_loss(student, gates.tap, base.shape.vocabulary))
    assert [seen[f"layers.{layer}.heads.gate"].numel() for layer in (0, 1)] == [0, 2]
    assert [seen[f"layers.{layer}.neurons.gate"].numel() for layer in (0, 1)] == [16, 0]


def test_looking_at_weights_leaves_no_gradient_behind_and_the_graph_whole(base: BaseModel) -> None:
    student = Student(base, slim_layers(base, dense_mask(base.shape)), Recipe(steps=1), device=CPU)
    watch = WeightGradients(student.matrices)
    loss = task_loss(student, watch.tap, base.shape.vocabulary)
    seen = watch.gradients(loss)
    assert all(parameter.grad is None for parameter in student.parameters.values())
    loss.backward()
    assert seen.keys() == student.matrices.keys()
    for name, matrix in student.matrices.items():
        assert matrix.grad is not None and torch.equal(seen[name], matrix.grad)


def test_looking_at_nothing_costs_nothing() -> None:
    assert WeightGradients({}).gradients(torch.tensor(1.0)) == {}
