"""Structures that go while the student trains."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.errors import SpecError
from pruning.pipeline import cut
from pruning.recovery.checkpoint import Checkpoints
from pruning.recovery.distillation import recover
from pruning.recovery.forward import batch_on, outputs_of
from pruning.recovery.narrowing import Kept, narrowed
from pruning.recovery.recipe import Recipe
from pruning.recovery.student import Student
from pruning.recovery.thinning import StudentGates, Thinning, cubic
from pruning.recovery.training import Progress
from pruning.slim.convert import build_slim, dense_mask, layer_widths, slim_layers
from pruning.spec import Structures
from pruning.workbench import Workbench
from tests.pruning.parts import logits_of, mask_of, sequences_of
from tests.pruning.recovery.conftest import CPU, HALF, SHORT, ZEROS

GRADUAL = replace(SHORT, steps=10, gradual=1.0, cut_every=1, check_every=2)


def test_what_is_narrowed_twice_is_what_was_cut_at_once(base: BaseModel) -> None:
    first = [Kept(torch.tensor([0, 2, 3]), torch.arange(0, 64, 2)), Kept(torch.tensor([1]), torch.arange(10))]
    second = [Kept(torch.tensor([1, 2]), torch.arange(16)), Kept(torch.tensor([], dtype=torch.long), torch.arange(10))]
    dense = slim_layers(base, dense_mask(base.shape))
    twice = narrowed(narrowed(dense, first, base.shape.head_dim), second, base.shape.head_dim)
    once = slim_layers(base, mask_of(base.shape, [[2, 3], []], [range(0, 32, 2), range(10)]))
    assert all(torch.equal(twice[name], once[name]) for name in once)
    sequences = sequences_of((4, 9), vocabulary=base.shape.vocabulary)
    assert torch.equal(logits_of(build_slim(base, twice), sequences), logits_of(build_slim(base, once), sequences))


def test_a_gates_gradient_is_that_of_the_structures_output_weights(base: BaseModel) -> None:
    """GRAIN's score: the sum over a structure's output weights of weight times gradient."""
    student = Student(base, slim_layers(base, dense_mask(base.shape)), Recipe(steps=1), device=CPU)
    gates = StudentGates(student.counts(), base.shape.head_dim, CPU)
    batch = batch_on(sequences_of((5, 8, 13), vocabulary=base.shape.vocabulary), CPU)
    loss = functional.cross_entropy(outputs_of(student.model, batch, gates.tap)[0], torch.tensor([0, 1, 1]))
    seen = gates.gradients(loss)
    loss.backward()

    def by_weight(name: str) -> Tensor:
        weight = student.parameters[name]
        assert weight.grad is not None
        return (weight * weight.grad).sum(0)

    for layer in range(base.shape.num_layers):
        heads = by_weight(f"layers.{layer}.attention_output.weight").view(base.shape.num_heads, -1).sum(1).abs()
        neurons = by_weight(f"layers.{layer}.ffn_out.weight").abs()
        torch.testing.assert_close(seen[layer], heads, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(seen[base.shape.num_layers + layer], neurons, rtol=1e-3, atol=1e-6)


def test_the_schedule_is_cubic() -> None:
    assert [cubic(share) for share in (0.0, 0.5, 1.0)] == [0.0, 0.875, 1.0]


def test_the_least_important_go_first_and_none_comes_back(base: BaseModel) -> None:
    counts = {0.0: ([4, 4], [64, 64]), cubic(0.5): ([2, 3], [32, 64]), 1.0: ([1, 3], [16, 0])}
    thinning = Thinning(replace(GRADUAL, gradual=1.0), counts.__getitem__, base.shape.head_dim, CPU)
    student = Student(base, slim_layers(base, dense_mask(base.shape)), Recipe(steps=1), device=CPU)
    batch = batch_on(sequences_of((5, 8), vocabulary=base.shape.vocabulary), CPU)
    student.learn(outputs_of(student.model, batch)[0].sum(), 1e-3)
    thinning._scores = [
        torch.tensor([4.0, 1.0, 3.0, 2.0]), torch.arange(4.0), torch.arange(64.0), torch.arange(64.0).flip(0)
    ]  # fmt: skip
    before = student.layers()
    half = thinning.thinned(student, 1, 0.5)
    assert half.counts() == ([2, 3], [32, 64]) and not thinning.is_over(half)
    kept = [Kept(torch.tensor([0, 2]), torch.arange(32, 64)), Kept(torch.tensor([1, 2, 3]), torch.arange(64))]
    expected = narrowed(before, kept, base.shape.head_dim)
    assert all(torch.equal(half.layers()[name], expected[name]) for name in expected)
    whole = thinning.thinned(half, 2, 1.0)
    assert whole.counts() == ([1, 3], [16, 0]) and thinning.is_over(whole)
    assert thinning.thinned(whole, 3, 1.0) is whole
    # What is left goes on training.
    whole.learn(outputs_of(whole.model, batch)[0].sum(), 1e-3)


def test_a_gradual_cut_ends_as_wide_as_the_cut_at_once(bench: Workbench, rows: LabelledSet) -> None:
    manifest, recovered = recover(bench, HALF, rows, GRADUAL)
    at_once, cost, achieved = cut(bench, HALF)
    assert layer_widths(bench.recovered.load(recovered), bench.base.shape) == layer_widths(at_once, bench.base.shape)
    assert (manifest.cost, manifest.achieved_sparsity) == (cost, pytest.approx(achieved))


def test_a_run_too_short_to_thin_slowly_still_ends_thin(bench: Workbench, rows: LabelledSet) -> None:
    manifest, _ = recover(bench, HALF, rows, replace(GRADUAL, steps=1, gradual=1.0))
    assert manifest.achieved_sparsity == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("step", [2, 3, 5, 7])
def test_a_gradual_run_that_was_killed_and_resumed_equals_one_that_was_not(
    bench: Workbench, rows: LabelledSet, tmp_path: Path, step: int
) -> None:
    def kill(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    _, whole = recover(bench, HALF, rows, GRADUAL)
    other = replace(bench, root=tmp_path / "other")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "calibration").symlink_to(bench.cache.folder)
    with pytest.raises(KeyboardInterrupt):
        recover(other, HALF, rows, GRADUAL, report=kill)
    assert Checkpoints(other.root, f"{whole.cut}-{whole.recipe_id}").newest()[0].step == step - step % 2
    _, resumed = recover(other, HALF, rows, GRADUAL, resume=True)
    assert resumed.digest == whole.digest


def test_whole_sublayers_go_gradually_too(bench: Workbench, rows: LabelledSet) -> None:
    spec = replace(HALF, structures=Structures.SUBLAYERS)
    _, recovered = recover(bench, spec, rows, GRADUAL)
    heads, neurons = layer_widths(bench.recovered.load(recovered), bench.base.shape)
    assert {*heads, *neurons} == {0, bench.base.shape.num_heads, bench.base.shape.ffn}


def test_gradual_is_refused_where_no_whole_structures_go(bench: Workbench, rows: LabelledSet) -> None:
    with pytest.raises(SpecError, match=r"structures='heads\+units\+neurons' use gradual=0"):
        recover(bench, replace(HALF, structures=Structures.UNITS), rows, GRADUAL)
    with pytest.raises(SpecError, match="pattern='unstructured' use gradual=0"):
        recover(bench, ZEROS, rows, GRADUAL)
