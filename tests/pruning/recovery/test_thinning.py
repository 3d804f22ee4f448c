"""Structures that go while the student trains."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pruning.cost import HeadDims
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
from pruning.recovery.thinning import StudentGates, Thinning, UnitGates, cubic
from pruning.recovery.training import Progress
from pruning.slim.attention import Heads
from pruning.slim.convert import build_slim, dense_mask, layer_heads, layer_widths, slim_layers
from pruning.spec import Structures
from pruning.workbench import Workbench
from tests.pruning.parts import logits_of, mask_of, sequences_of, with_units
from tests.pruning.recovery.conftest import CPU, HALF, SHORT, ZEROS

GRADUAL = replace(SHORT, steps=10, gradual=1.0, cut_every=1, check_every=2)


def test_what_is_narrowed_twice_is_what_was_cut_at_once(base: BaseModel) -> None:
    four, three, one = (Heads(count, base.shape.whole, 1.0) for count in (4, 3, 1))
    none = torch.tensor([], dtype=torch.long)
    first = [
        Kept.whole_heads(torch.tensor([0, 2, 3]), torch.arange(0, 64, 2), four),
        Kept.whole_heads(torch.tensor([1]), torch.arange(10), four),
    ]
    second = [
        Kept.whole_heads(torch.tensor([1, 2]), torch.arange(16), three),
        Kept.whole_heads(none, torch.arange(10), one),
    ]
    dense = slim_layers(base, dense_mask(base.shape))
    twice = narrowed(narrowed(dense, first), second)
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
    four = Heads(4, base.shape.whole, 1.0)
    kept = [
        Kept.whole_heads(torch.tensor([0, 2]), torch.arange(32, 64), four),
        Kept.whole_heads(torch.tensor([1, 2, 3]), torch.arange(64), four),
    ]
    expected = narrowed(before, kept)
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


@pytest.mark.parametrize(
    ("step", "structures"), [*((step, Structures.HEADS) for step in (2, 3, 5, 7)), (5, Structures.UNITS)]
)
def test_a_gradual_run_that_was_killed_and_resumed_equals_one_that_was_not(
    bench: Workbench, rows: LabelledSet, tmp_path: Path, step: int, structures: Structures
) -> None:
    spec = replace(HALF, structures=structures)

    def kill(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    _, whole = recover(bench, spec, rows, GRADUAL)
    other = replace(bench, root=tmp_path / "other")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "calibration").symlink_to(bench.cache.folder)
    with pytest.raises(KeyboardInterrupt):
        recover(other, spec, rows, GRADUAL, report=kill)
    assert Checkpoints(other.root, f"{whole.cut}-{whole.recipe_id}").newest()[0].step == step - step % 2
    _, resumed = recover(other, spec, rows, GRADUAL, resume=True)
    assert resumed.digest == whole.digest


def test_whole_sublayers_go_gradually_too(bench: Workbench, rows: LabelledSet) -> None:
    spec = replace(HALF, structures=Structures.SUBLAYERS)
    _, recovered = recover(bench, spec, rows, GRADUAL)
    heads, neurons = layer_widths(bench.recovered.load(recovered), bench.base.shape)
    assert {*heads, *neurons} == {0, bench.base.shape.num_heads, bench.base.shape.ffn}


def test_gradual_is_refused_where_no_structures_go(bench: Workbench, rows: LabelledSet) -> None:
    with pytest.raises(SpecError, match="pattern='unstructured' use gradual=0"):
        recover(bench, ZEROS, rows, GRADUAL)


def test_units_inside_heads_go_gradually_to_the_widths_of_the_cut_at_once(bench: Workbench, rows: LabelledSet) -> None:
    spec = replace(HALF, structures=Structures.UNITS)
    manifest, recovered = recover(bench, spec, rows, GRADUAL)
    at_once, cost, _ = cut(bench, spec)
    assert manifest.cost == cost and manifest.head_dims is not None
    assert layer_heads(bench.recovered.load(recovered), bench.base.shape) == layer_heads(at_once, bench.base.shape)


def test_units_are_scored_by_their_own_weights(base: BaseModel) -> None:
    mask = with_units(mask_of(base.shape, [[0, 2], []], [range(9), range(5)]), base.shape, [HeadDims(3, 5)] * 2)
    student = Student(base, slim_layers(base, mask), Recipe(steps=1), device=CPU)
    gates = UnitGates(student)
    batch = batch_on(sequences_of((5, 8, 13), vocabulary=base.shape.vocabulary), CPU)
    loss = functional.cross_entropy(outputs_of(student.model, batch, gates.tap)[0], torch.tensor([0, 1, 1]))
    seen = gates.gradients(loss)
    loss.backward()

    def products_of(name: str) -> Tensor:
        parameter = student.parameters[f"layers.0.{name}"]
        assert parameter.grad is not None
        return (parameter * parameter.grad).detach()

    qk = products_of("qkv.weight").sum(1) + products_of("qkv.bias")
    vo = products_of("attention_output.weight").sum(0)
    assert [tuple(one.shape) for one in seen] == [(2,), (0,), (9,), (5,), (2, 3), (0, 8), (2, 5), (0, 8)]
    torch.testing.assert_close(seen[0], vo.view(2, 5).sum(1).abs(), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(seen[2], products_of("ffn_out.weight").sum(0).abs(), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(seen[4], qk[:6].view(2, 3).abs(), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(seen[6], vo.view(2, 5).abs(), rtol=1e-3, atol=1e-6)


def test_the_least_important_units_of_the_kept_heads_go_and_none_comes_back(base: BaseModel) -> None:
    neurons = [64, 64]
    counts = {0.0: ([4, 4], neurons), cubic(0.5): ([2, 4], neurons), 1.0: ([1, 0], neurons)}
    dims = {cubic(0.5): [HeadDims(3, 8), HeadDims(8, 2)], 1.0: [HeadDims(2, 6), HeadDims(8, 8)]}
    thinning = Thinning(replace(GRADUAL, gradual=1.0), counts.__getitem__, 8, CPU, dims.__getitem__)
    student = Student(base, slim_layers(base, dense_mask(base.shape)), Recipe(steps=1), device=CPU)
    batch = batch_on(sequences_of((5, 8), vocabulary=base.shape.vocabulary), CPU)
    student.learn(outputs_of(student.model, batch)[0].sum(), 1e-3)
    units = torch.tensor([3.0, 1.0, 2.0, 8.0, 7.0, 0.0, 4.0, 5.0]).repeat(4, 1)
    thinning._scores = [
        torch.tensor([4.0, 1.0, 3.0, 2.0]), torch.arange(4.0), torch.arange(64.0), torch.arange(64.0),
        units, units, units.flip(1), units,
    ]  # fmt: skip
    before = student.layers()
    half = thinning.thinned(student, 1, 0.5)
    assert [(heads.count, heads.dims) for heads in half.heads()] == [(2, (3, 8)), (4, (8, 2))]
    queries = [0 + 3, 0 + 4, 0 + 7, 16 + 3, 16 + 4, 16 + 7]
    after = half.layers()
    assert torch.equal(after["layers.0.qkv.weight"][:6], before["layers.0.qkv.weight"][queries])
    values = [8 * head + unit for head in range(4) for unit in (3, 4)]
    assert torch.equal(after["layers.1.attention_output.weight"], before["layers.1.attention_output.weight"][:, values])
    last = thinning.thinned(half, 2, 1.0)
    assert [(heads.count, heads.dims) for heads in last.heads()] == [(1, (2, 6)), (0, (8, 8))]
    assert torch.equal(last.layers()["layers.0.qkv.weight"][:2], before["layers.0.qkv.weight"][[3, 4]])
    assert thinning.is_over(last)
    last.learn(outputs_of(last.model, batch)[0].sum(), 1e-3)
