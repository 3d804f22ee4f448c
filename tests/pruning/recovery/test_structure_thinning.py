"""Heads and neurons that go while the student trains."""

from dataclasses import replace

import pytest
import torch

from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.pipeline import cut
from pruning.recovery.criteria import STRUCTURE_CRITERIA
from pruning.recovery.distillation import _thinning, recover
from pruning.recovery.forward import batch_on, outputs_of
from pruning.recovery.narrowing import Kept, narrowed
from pruning.recovery.recipe import Criterion, Recipe
from pruning.recovery.structure_thinning import StructureThinning
from pruning.recovery.student import Student
from pruning.recovery.thinning import cubic
from pruning.slim.convert import build_slim, dense_mask, layer_widths, slim_layers
from pruning.spec import PruneSpec, Scope, Structures
from pruning.workbench import Workbench
from tests.pruning.parts import logits_of, mask_of, sequences_of
from tests.pruning.recovery.conftest import CPU, GRADUAL, HALF


def test_what_is_narrowed_twice_is_what_was_cut_at_once(base: BaseModel) -> None:
    first = [Kept(torch.tensor([0, 2, 3]), torch.arange(0, 64, 2)), Kept(torch.tensor([1]), torch.arange(10))]
    second = [Kept(torch.tensor([1, 2]), torch.arange(16)), Kept(torch.tensor([], dtype=torch.long), torch.arange(10))]
    dense = slim_layers(base, dense_mask(base.shape))
    twice = narrowed(narrowed(dense, first, base.shape.head_dim), second, base.shape.head_dim)
    once = slim_layers(base, mask_of(base.shape, [[2, 3], []], [range(0, 32, 2), range(10)]))
    assert all(torch.equal(twice[name], once[name]) for name in once)
    sequences = sequences_of((4, 9), vocabulary=base.shape.vocabulary)
    assert torch.equal(logits_of(build_slim(base, twice), sequences), logits_of(build_slim(base, once), sequences))


def test_units_inside_heads_go_with_their_heads() -> None:
    units = {"layers.0.qk.weight": torch.arange(12.0), "layers.0.heads.gate": torch.arange(3.0)}
    left = narrowed(units, [Kept(torch.tensor([0, 2]), torch.tensor([], dtype=torch.long))], 4)
    assert left["layers.0.qk.weight"].tolist() == [0.0, 1.0, 2.0, 3.0, 8.0, 9.0, 10.0, 11.0]
    assert left["layers.0.heads.gate"].tolist() == [0.0, 2.0]


def test_the_least_important_go_first_and_none_comes_back(base: BaseModel) -> None:
    counts = {cubic(0.5): ([2, 3], [32, 64]), 1.0: ([1, 3], [16, 0])}
    criterion = STRUCTURE_CRITERIA[Criterion.MASK_GRADIENT]
    thinning = StructureThinning(replace(GRADUAL, gradual=1.0), criterion, counts.__getitem__)
    student = Student(base, slim_layers(base, dense_mask(base.shape)), Recipe(steps=1), device=CPU)
    batch = batch_on(sequences_of((5, 8), vocabulary=base.shape.vocabulary), CPU)
    student.learn(outputs_of(student.model, batch)[0].sum(), 1e-3)
    thinning._memory = {
        "score": {
            "layers.0.heads.gate": torch.tensor([4.0, 1.0, 3.0, 2.0]),
            "layers.1.heads.gate": torch.arange(4.0),
            "layers.0.neurons.gate": torch.arange(64.0),
            "layers.1.neurons.gate": torch.arange(64.0).flip(0),
        }
    }
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


@pytest.mark.parametrize(
    ("structures", "scope"),
    [(Structures.HEADS, None), (Structures.SUBLAYERS, None), (Structures.HEADS, Scope.LAYERWISE)],
)
def test_what_the_cut_keeps_never_goes_on_the_way_to_it(
    bench: Workbench, structures: Structures, scope: Scope | None
) -> None:
    """Masks of whole sublayers, of even widths and of coarse encoders are not always parts of each other."""
    for sparsity in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        spec = PruneSpec(sparsity=sparsity, structures=structures, scope=scope)
        thinning = _thinning(bench, spec, GRADUAL)
        assert isinstance(thinning, StructureThinning)
        end = thinning.counts_at(1.0)
        assert end == layer_widths(cut(bench, spec)[0], bench.base.shape)
        for step in range(20):
            heads, neurons = thinning.counts_at(step / 20)
            assert all(now >= last for now, last in zip(heads + neurons, end[0] + end[1], strict=True))


@pytest.mark.parametrize("criterion", STRUCTURE_CRITERIA)
def test_a_gradual_cut_ends_as_wide_as_the_cut_at_once(
    bench: Workbench, rows: LabelledSet, criterion: Criterion
) -> None:
    manifest, recovered = recover(bench, HALF, rows, replace(GRADUAL, criterion=criterion))
    at_once, cost, achieved = cut(bench, HALF)
    assert layer_widths(bench.recovered.load(recovered), bench.base.shape) == layer_widths(at_once, bench.base.shape)
    assert (manifest.cost, manifest.achieved_sparsity) == (cost, pytest.approx(achieved))
