"""The cut that a checkpoint came with is found, kept and served as it is."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pruning.encoder import BaseModel
from pruning.errors import SpecError
from pruning.identity import cut_id, identify
from pruning.imported import imported_layers, own_zeros
from pruning.masks.structures import StructureMask
from pruning.masks.weights import two_four_mask, unstructured_mask
from pruning.pipeline import build_variant, cut
from pruning.recovery.distillation import recover
from pruning.recovery.recipe import Recipe
from pruning.slim.bert import SlimBert
from pruning.slim.convert import build_slim, layer_widths
from pruning.slim.quantized import multiplies_integers
from pruning.spec import IMPORTED, Pattern, Precision, PruneSpec, Recover, Scope
from pruning.workbench import Workbench
from tests.pruning.parts import dense_model, logits_of, sequences_of

LENGTHS = (3, 9, 17)
HEADS, NEURONS = {(0, 1), (0, 2), (1, 3)}, {(0, 5), (0, 6), (1, 63)}
"""What is gone of the models with whole structures zeroed: (layer, index)."""

Zeroed = Mapping[str, Tensor]


def with_tensors(base: BaseModel, tensors: Mapping[str, Tensor]) -> BaseModel:
    return replace(base, tensors={**base.tensors, **tensors}, weights_digest="zeroed")


def unstructured(base: BaseModel, sparsity: float = 0.75) -> BaseModel:
    weights = base.prunable_weights()
    kept = unstructured_mask({name: weight.abs() for name, weight in weights.items()}, sparsity, Scope.LAYERWISE)
    return with_tensors(base, {name: weights[name] * kept[name] for name in weights})


def two_four(base: BaseModel) -> BaseModel:
    weights = base.prunable_weights()
    kept = two_four_mask({name: weight.abs() for name, weight in weights.items()})
    return with_tensors(base, {name: weights[name] * kept[name] for name in weights})


def structured(base: BaseModel) -> BaseModel:
    """Heads without values or unread, neurons without inputs or unread."""
    tensors = {name: tensor.clone() for name, tensor in base.tensors.items()}
    dims = base.shape.head_dim
    for layer, head in HEADS:
        rows = slice(head * dims, (head + 1) * dims)
        if head == 1:
            tensors[f"layers.{layer}.attention_output.weight"][:, rows] = 0
        else:
            tensors[f"layers.{layer}.value.weight"][rows] = 0
            tensors[f"layers.{layer}.value.bias"][rows] = 0
    for layer, neuron in NEURONS:
        if neuron == 5:
            tensors[f"layers.{layer}.ffn_out.weight"][:, neuron] = 0
        else:
            tensors[f"layers.{layer}.ffn_in.weight"][neuron] = 0
            tensors[f"layers.{layer}.ffn_in.bias"][neuron] = 0
    return with_tensors(base, tensors)


def mixed(base: BaseModel) -> BaseModel:
    """Whole structures, and among what is left a few single weights."""
    zeroed = structured(base)
    name = "layers.1.ffn_in.weight"
    weight = zeroed.tensors[name].clone()
    weight[:10, :3] = 0
    return with_tensors(zeroed, {name: weight})


def gone(structures: StructureMask) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    heads, neurons = ((~kept).nonzero().tolist() for kept in (structures.heads_LN, structures.neurons_LF))
    return {(layer, index) for layer, index in heads}, {(layer, index) for layer, index in neurons}


def own_cut(base: BaseModel) -> PruneSpec:
    found = own_zeros(base)
    return PruneSpec(sparsity=found.asked_for, pattern=found.pattern, scorer=IMPORTED)


def answers(model: SlimBert) -> Tensor:
    return logits_of(model, sequences_of(LENGTHS, vocabulary=model.word.num_embeddings))


@pytest.mark.parametrize(
    ("zeroed", "pattern"),
    [
        (unstructured, Pattern.UNSTRUCTURED),
        (two_four, Pattern.TWO_FOUR),
        (structured, Pattern.STRUCTURED),
        (mixed, Pattern.STRUCTURED),
    ],
)
def test_exactly_the_zeros_are_found_and_the_answers_stay(
    base: BaseModel, zeroed: Callable[[BaseModel], BaseModel], pattern: Pattern
) -> None:
    sparse = zeroed(base)
    found = own_zeros(sparse)
    weights = sparse.prunable_weights()
    assert found.pattern is pattern
    assert found.by_tensor == {name: float((weight == 0).double().mean()) for name, weight in weights.items()}
    layers = imported_layers(sparse, own_cut(sparse))
    torch.testing.assert_close(answers(build_slim(sparse, layers)), answers(dense_model(sparse)), rtol=1e-5, atol=1e-6)
    left = sum(int((tensor != 0).sum()) for tensor in layers.values() if tensor.ndim == 2)
    assert found.sparsity == 1 - left / base.shape.prunable_weights


def test_whole_structures_are_taken_out(base: BaseModel) -> None:
    for zeroed in (structured(base), mixed(base)):
        found = own_zeros(zeroed)
        assert gone(found.structures) == (HEADS, NEURONS)
        heads, neurons = layer_widths(imported_layers(zeroed, own_cut(zeroed)), base.shape)
        assert (heads, neurons) == ([2, 3], [62, 63])


def test_a_structure_that_says_a_constant_is_no_zero(base: BaseModel) -> None:
    zeroed = structured(base)
    name = "layers.0.ffn_in.bias"
    bias = zeroed.tensors[name].clone()
    bias[6] = 0.5
    assert gone(own_zeros(with_tensors(zeroed, {name: bias})).structures) == (HEADS, NEURONS - {(0, 6)})


def test_the_groups_of_a_two_four_checkpoint_stay_together(base: BaseModel) -> None:
    """Taking out a neuron that says nothing would move the inputs behind it into other groups."""
    sparse = two_four(base)
    name = "layers.0.ffn_out.weight"
    weight = sparse.tensors[name].clone()
    weight[:, 1] = 0
    silent = with_tensors(sparse, {name: weight})
    assert own_zeros(silent).pattern is Pattern.TWO_FOUR
    layers = imported_layers(silent, own_cut(silent))
    assert layers[name].shape == weight.shape
    assert int((layers[name] != 0).reshape(-1, 4).sum(1).max()) == 2


def test_a_third_weight_of_a_group_makes_it_unstructured(base: BaseModel) -> None:
    name = "layers.0.query.weight"
    weight = two_four(base).tensors[name].clone()
    weight[0, :4] = 1.0
    assert own_zeros(with_tensors(two_four(base), {name: weight})).pattern is Pattern.UNSTRUCTURED


def test_a_dense_checkpoint_is_refused(base: BaseModel) -> None:
    with pytest.raises(SpecError, match=r"is dense: 0\.00% .* 'sparsedial prune'"):
        own_zeros(base)


@pytest.mark.parametrize("other", [{"sparsity": 0.5}, {"pattern": "structured"}])
def test_another_cut_than_its_own_is_refused_naming_its_own(base: BaseModel, other: dict[str, object]) -> None:
    sparse = unstructured(base)
    asked = PruneSpec.from_dict({"sparsity": 0.75, "pattern": "unstructured", "scorer": IMPORTED} | other)
    with pytest.raises(SpecError, match=r"came with sparsity 0\.75, pattern='unstructured'"):
        imported_layers(sparse, asked)


@pytest.mark.parametrize("recover", [Recover.RECONSTRUCT, Recover.SEQUENTIAL])
def test_what_makes_up_for_a_cut_is_refused(recover: Recover) -> None:
    with pytest.raises(SpecError, match="came with its own"):
        PruneSpec(sparsity=0.5, scorer=IMPORTED, recover=recover)


def test_an_imported_cut_is_not_made_bit_by_bit(sparse_bench: Workbench) -> None:
    with pytest.raises(SpecError, match="made already: use gradual=0"):
        recover(sparse_bench, own_cut(sparse_bench.base), sparse_bench.train, Recipe(steps=1, gradual=0.5))


def test_single_zeros_beside_whole_structures_are_locked(bench: Workbench) -> None:
    sparse = mixed(bench.base)
    mixed_bench = Workbench(sparse, bench.train, bench.evaluation, bench.root)
    spec = own_cut(sparse)
    before, _, _ = cut(mixed_bench, spec)
    manifest, _ = recover(mixed_bench, spec, bench.train, Recipe(steps=3, batch_rows=8, learning_rate=1e-2))
    _, after = mixed_bench.store.load(manifest.variant_id)
    for name, tensor in before.items():
        if tensor.ndim == 2:
            assert torch.equal(after[name] != 0, tensor != 0), name


def test_training_begins_with_the_cut_as_it_is() -> None:
    spec = PruneSpec(sparsity=0.5, scorer=IMPORTED, recover=Recover.DISTILL, precision=Precision.INT8)
    assert spec.before_training() == PruneSpec(sparsity=0.5, scorer=IMPORTED, recover=Recover.NONE)


def test_a_scope_is_refused() -> None:
    with pytest.raises(SpecError, match="no weights compete"):
        PruneSpec(sparsity=0.5, scorer=IMPORTED, pattern=Pattern.UNSTRUCTURED, scope=Scope.ROW)


@pytest.fixture
def sparse_bench(bench: Workbench) -> Workbench:
    return Workbench(unstructured(bench.base), bench.train, bench.evaluation, bench.root)


def test_it_is_a_variant_like_any_other_and_needs_no_calibration(sparse_bench: Workbench) -> None:
    assert sparse_bench.key not in sparse_bench.cache
    spec = own_cut(sparse_bench.base)
    manifest = build_variant(sparse_bench, spec)
    assert manifest.spec == spec and manifest.spec.recover is Recover.NONE
    assert manifest.achieved_sparsity == own_zeros(sparse_bench.base).sparsity
    assert manifest.evaluation.agreement == 1.0
    assert manifest.cost.prunable_parameters == sparse_bench.base.shape.prunable_weights // 4
    assert build_variant(sparse_bench, spec) == manifest


@pytest.mark.skipif(not multiplies_integers(), reason="this processor does not multiply integers")
def test_zeros_are_zeros_in_int8(sparse_bench: Workbench) -> None:
    spec = own_cut(sparse_bench.base)
    real, _, _ = cut(sparse_bench, spec)
    integers, _, _ = cut(sparse_bench, replace(spec, precision=Precision.INT8))
    for name in real:
        if real[name].ndim == 2:
            assert not integers[name][real[name] == 0].any(), name


def test_the_weights_are_one_cut_and_the_evaluation_rows_tell_variants_apart(sparse_bench: Workbench) -> None:
    spec = own_cut(sparse_bench.base)
    fewer = sparse_bench.evaluation.subset(range(20))
    other = Workbench(sparse_bench.base, sparse_bench.train, fewer, sparse_bench.root)
    assert cut_id(sparse_bench, spec) == cut_id(other, spec)
    assert identify(sparse_bench, spec) != identify(other, spec)
