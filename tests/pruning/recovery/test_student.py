import pytest
import torch
from torch import Tensor, nn

from pruning.encoder import BaseModel
from pruning.errors import RecoveryError
from pruning.masks.weights import unstructured_mask
from pruning.recovery.forward import batch_on, outputs_of
from pruning.recovery.recipe import Recipe
from pruning.recovery.student import GradientError, Student, kept_weights
from pruning.slim.convert import shared_slots, slim_layers, zeroed_layers
from tests.pruning.parts import mask_of, sequences_of

CPU = torch.device("cpu")
RECIPE = Recipe(steps=3, weight_decay=0.1)


def a_few_steps(base: BaseModel, student: Student, count: int = 3) -> None:
    for seed in range(count):
        batch = batch_on(sequences_of((5, 8, 13), vocabulary=base.shape.vocabulary, seed=seed), CPU)
        student.learn(outputs_of(student.model, batch)[0].square().sum(), 1e-2)


def test_locked_zeros_stay_zeros_and_everything_else_learns(base: BaseModel) -> None:
    scores = {name: weight.abs() for name, weight in base.prunable_weights().items()}
    before = zeroed_layers(base, unstructured_mask(scores, 0.5))
    student = Student(base, before, RECIPE, kept=kept_weights(before), device=CPU)
    a_few_steps(base, student)
    after = student.layers()
    for name, tensor in before.items():
        if tensor.ndim == 2:
            assert torch.equal(after[name] != 0, tensor != 0), name
        assert not torch.equal(after[name], tensor), name


def test_without_the_lock_zeros_learn(base: BaseModel) -> None:
    scores = {name: weight.abs() for name, weight in base.prunable_weights().items()}
    before = zeroed_layers(base, unstructured_mask(scores, 0.5))
    student = Student(base, before, RECIPE, device=CPU)
    a_few_steps(base, student, 1)
    assert (student.layers()["layers.0.ffn_in.weight"] != 0).all()


def flat(student: Student) -> Tensor:
    return torch.cat([parameter.flatten() for parameter in student.parameters.values()])


def test_where_there_is_nothing_to_learn_matrices_alone_decay(base: BaseModel) -> None:
    before = zeroed_layers(base, {})
    student = Student(base, before, RECIPE, device=CPU)
    student.learn(0.0 * flat(student).sum(), 0.5)
    for name, tensor in student.layers().items():
        share = 1.0 - 0.5 * RECIPE.weight_decay if tensor.ndim == 2 else 1.0
        torch.testing.assert_close(tensor, share * before[name], rtol=1e-6, atol=0.0)


@pytest.mark.parametrize(("length", "taken"), [(0.25, 0.25), (1.0, 1.0), (40.0, 1.0)])
def test_a_longer_gradient_than_1_is_shortened_to_it(base: BaseModel, length: float, taken: float) -> None:
    student = Student(base, zeroed_layers(base, {}), RECIPE, device=CPU)
    count = sum(parameter.numel() for parameter in student.parameters.values())
    student.learn(length / count**0.5 * flat(student).sum(), 1e-3)
    means = [tensor.flatten() for name, tensor in student.state().items() if name.startswith("mean.")]
    assert float(torch.cat(means).norm()) == pytest.approx(0.1 * taken, rel=1e-3)  # of AdamW's first moment, a tenth


def test_what_variants_share_and_the_base_model_are_not_touched(base: BaseModel) -> None:
    before = {name: tensor.clone() for name, tensor in base.tensors.items()}
    student = Student(base, zeroed_layers(base, {}), RECIPE, device=CPU)
    a_few_steps(base, student)
    assert all(torch.equal(base.tensors[name], tensor) for name, tensor in before.items())
    state = student.model.state_dict()
    assert all(torch.equal(state[name], base.tensors[slot]) for name, slot in shared_slots(base).items())


def test_a_layer_without_heads_or_neurons_trains_what_is_left_of_it(base: BaseModel) -> None:
    layers = slim_layers(base, mask_of(base.shape, [[], [0, 2]], [range(16), []]))
    student = Student(base, layers, RECIPE, device=CPU)
    a_few_steps(base, student)
    after = student.layers()
    assert after.keys() == layers.keys()
    assert not torch.equal(after["layers.0.attention_output.bias"], layers["layers.0.attention_output.bias"])


def test_a_state_of_another_cut_is_refused(base: BaseModel) -> None:
    wide = Student(base, zeroed_layers(base, {}), RECIPE, device=CPU)
    a_few_steps(base, wide)
    narrow_layers = slim_layers(base, mask_of(base.shape, [[0], [0, 2]], [range(16), range(16)]))
    narrow = Student(base, narrow_layers, RECIPE, device=CPU)
    with pytest.raises(RecoveryError, match="does not fit this cut"):
        narrow.with_layers(narrow_layers, wide.state(), 3)


def test_a_gradient_that_is_not_finite_is_refused_before_it_does_harm(base: BaseModel) -> None:
    student = Student(base, zeroed_layers(base, {}), RECIPE, device=CPU)
    before = student.layers()
    batch = batch_on(sequences_of((5, 8), vocabulary=base.shape.vocabulary), CPU)
    for factor in (float("inf"), 1e30):  # the second overflows where all gradients are squared and added
        with pytest.raises(GradientError):
            student.learn(outputs_of(student.model, batch)[0].sum() * factor, 1e-2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.layers().items())
    a_few_steps(base, student, 1)
    assert all(torch.isfinite(tensor).all() for tensor in student.layers().values())


def test_the_uppermost_parameter_whose_gradient_is_not_finite_is_named(base: BaseModel) -> None:
    student = Student(base, zeroed_layers(base, {}), RECIPE, device=CPU)
    batch = batch_on(sequences_of((5, 8), vocabulary=base.shape.vocabulary), CPU)

    def spoil(_: nn.Module, __: object, output: Tensor) -> None:
        output.register_hook(lambda gradient: gradient * float("nan"))

    student.model.layers[0].register_forward_hook(spoil)
    with pytest.raises(GradientError) as refusal:
        student.learn(outputs_of(student.model, batch)[0].sum(), 1e-2)
    assert refusal.value.place == "layers.0.ffn_norm.bias"


def test_what_is_no_lesson_is_told_without_a_step(base: BaseModel) -> None:
    student = Student(base, zeroed_layers(base, {}), RECIPE, device=CPU)
    before = student.layers()
    batch = batch_on(sequences_of((5, 8), vocabulary=base.shape.vocabulary), CPU)
    assert student.is_taught(outputs_of(student.model, batch)[0].sum())
    assert not student.is_taught(outputs_of(student.model, batch)[0].sum() * float("inf"))
    logits = outputs_of(student.model, batch)[0]
    logits.register_hook(lambda gradient: gradient * float("nan"))
    assert not student.is_taught(logits.sum())
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.layers().items())
    assert all(parameter.grad is None for parameter in student.parameters.values())
