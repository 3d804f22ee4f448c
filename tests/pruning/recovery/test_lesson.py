"""What is learnt from a batch: by every architecture, with every head."""

from itertools import product
from pathlib import Path

import pytest
import torch

from pruning.architectures import ARCHITECTURES
from pruning.data import LabelledSet
from pruning.encoder import BaseModel, load_base_model
from pruning.heads import Head
from pruning.masks.weights import unstructured_mask
from pruning.recovery.lesson import Lesson
from pruning.recovery.recipe import Recipe
from pruning.recovery.student import Student, kept_weights
from pruning.slim.convert import slim_layers, zeroed_layers
from pruning.tasks import TASKS
from pruning.tokenization import TextTokenizer
from tests.pruning.parts import dense_model, mask_of
from tests.pruning.zoo import write_model, write_task_rows

CPU = torch.device("cpu")
STEPS = 30
RECIPE = Recipe(steps=STEPS, batch_rows=8, learning_rate=3e-3)
EIGHT = range(8)


def model_and_rows(folder: Path, kind: str, head: Head) -> tuple[BaseModel, LabelledSet]:
    base = load_base_model(write_model(folder / "model", kind, head))
    file = write_task_rows(folder / "rows.jsonl", head, len(EIGHT))
    return base, TASKS[head].load(file, base.labels, TextTokenizer.load(base.path), base.max_length)


@pytest.mark.parametrize(("kind", "head"), list(product(ARCHITECTURES, Head)))
def test_a_batch_that_is_learnt_is_known_better(tmp_path: Path, kind: str, head: Head) -> None:
    base, rows = model_and_rows(tmp_path, kind, head)
    layers = slim_layers(base, mask_of(base.shape, [[0], [1, 2]], [range(16), range(32)]))
    lesson, student = Lesson(RECIPE, dense_model(base), rows, CPU), Student(base, layers, RECIPE, device=CPU)
    before = lesson.losses(student.model, EIGHT).total.item()
    for _ in range(STEPS):
        student.learn(lesson.losses(student.model, EIGHT).total, RECIPE.learning_rate)
    assert lesson.losses(student.model, EIGHT).total.item() < 0.7 * before


@pytest.mark.parametrize(("kind", "head"), [("distilbert", Head.TAGS), ("electra", Head.SPAN), ("roberta", Head.SCORE)])
def test_locked_zeros_stay_zeros_and_all_else_learns(tmp_path: Path, kind: str, head: Head) -> None:
    base, rows = model_and_rows(tmp_path, kind, head)
    scores = {name: weight.abs() for name, weight in base.prunable_weights().items()}
    before = zeroed_layers(base, unstructured_mask(scores, 0.5))
    student = Student(base, before, RECIPE, kept=kept_weights(before), device=CPU)
    lesson = Lesson(RECIPE, dense_model(base), rows, CPU)
    for _ in range(3):
        student.learn(lesson.losses(student.model, EIGHT).total, RECIPE.learning_rate)
    after = student.layers()
    for name, tensor in before.items():
        if tensor.ndim == 2:
            assert torch.equal(after[name] != 0, tensor != 0), name
        assert not torch.equal(after[name], tensor), name


@pytest.mark.parametrize("head", Head)
def test_the_loss_of_a_batch_is_the_mean_over_its_answers(tmp_path: Path, head: Head) -> None:
    base, rows = model_and_rows(tmp_path, "bert", head)
    recipe = Recipe(steps=1, hidden_weight=0.0)
    layers = slim_layers(base, mask_of(base.shape, [[0], [1, 2]], [range(16), range(32)]))
    lesson, model = Lesson(recipe, dense_model(base), rows, CPU), Student(base, layers, recipe, device=CPU).model
    answers = [TASKS[head].answers(rows.labels[[index]]) for index in EIGHT]
    alone = [lesson.losses(model, [index]) for index in EIGHT]
    whole = lesson.losses(model, EIGHT)
    for ours, parts in ((whole.total, [one.total for one in alone]), (whole.task, [one.task for one in alone])):
        mean = sum(part.item() * count for part, count in zip(parts, answers, strict=True)) / sum(answers)
        assert ours.item() == pytest.approx(mean, rel=0.05)  # products may be in bfloat16
