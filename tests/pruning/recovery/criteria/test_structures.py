"""What criteria say of heads and neurons, of layers that have shrunk already too."""

import math

import pytest
import torch

from pruning.encoder import BaseModel
from pruning.errors import SpecError
from pruning.recovery.criteria import STRUCTURE_CRITERIA, WEIGHT_CRITERIA, weight_criterion
from pruning.recovery.criteria.grain import Grain
from pruning.recovery.criteria.lifted import Lifted
from pruning.recovery.criteria.magnitude import Magnitude
from pruning.recovery.recipe import Criterion, Recipe
from pruning.recovery.student import Student
from pruning.scores.lifting import structure_sums
from pruning.slim.convert import dense_mask, slim_layers
from tests.pruning.parts import mask_of
from tests.pruning.recovery.conftest import CPU


def test_every_criterion_ranks_something() -> None:
    assert STRUCTURE_CRITERIA.keys() == set(Criterion)
    assert set(Criterion) - WEIGHT_CRITERIA.keys() == {Criterion.MASK_GRADIENT}
    assert weight_criterion(Criterion.MAGNITUDE) is WEIGHT_CRITERIA[Criterion.MAGNITUDE]
    with pytest.raises(SpecError, match="ranks heads and neurons"):
        weight_criterion(Criterion.MASK_GRADIENT)


def test_lifted_scores_are_those_of_the_lifting_rule(base: BaseModel) -> None:
    student = Student(base, slim_layers(base, dense_mask(base.shape)), Recipe(steps=1), device=CPU)
    scores = Lifted(Magnitude()).structures({}, student, [4, 4])
    sums = structure_sums(base.shape, {name: weight.abs() for name, weight in base.prunable_weights().items()})
    torch.testing.assert_close(torch.stack(scores.heads), sums.heads_LN)
    torch.testing.assert_close(torch.stack(scores.neurons), sums.neurons_LF)


def test_lifted_scores_of_what_is_left_are_those_it_had(base: BaseModel) -> None:
    whole = Student(base, slim_layers(base, dense_mask(base.shape)), Recipe(steps=1), device=CPU)
    left = slim_layers(base, mask_of(base.shape, [[], [0, 2]], [range(16), []]))
    before = Lifted(Magnitude()).structures({}, whole, [4, 4])
    after = Lifted(Magnitude()).structures({}, Student(base, left, Recipe(steps=1), device=CPU), [0, 1])
    assert after.heads[0].numel() == 0 and after.neurons[1].numel() == 0
    torch.testing.assert_close(after.heads[1], before.heads[1][[0, 2]])
    torch.testing.assert_close(after.neurons[0], before.neurons[0][:16])


def test_grain_empties_heads_few_of_whose_units_would_stay(base: BaseModel) -> None:
    # Heads of 8 units: two in layer 0, none in layer 1; room for the units of one head.
    layers = slim_layers(base, mask_of(base.shape, [[0, 2], []], [range(3), []]))
    student = Student(base, layers, Recipe(steps=1), device=CPU)
    vo = torch.tensor([5.0] * 6 + [0.0] * 2 + [4.0] * 2 + [3.0] * 6)
    memory = {
        "average": {
            "layers.0.vo.weight": vo,
            "layers.0.qk.weight": torch.ones(16),
            "layers.0.neurons.weight": torch.arange(3.0),
        }
    }
    scores = Grain().structures(memory, student, [1, 0])
    first = (6 * 5 + 8) / 16 * math.tanh(6 / 8 / 0.3)
    second = (2 * 4 + 6 * 3 + 8) / 16 * math.tanh(2 / 8 / 0.3)
    assert scores.heads[0].tolist() == pytest.approx([first, second], rel=1e-5)
    assert scores.heads[1].numel() == 0 and scores.neurons[1].numel() == 0
    assert scores.neurons[0].tolist() == [0.0, 1.0, 2.0]
