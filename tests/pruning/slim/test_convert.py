from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.cost import HeadDims
from pruning.encoder import BaseModel
from pruning.errors import StoreError
from pruning.masks.structures import StructureMask
from pruning.slim.convert import (
    build_slim,
    dense_mask,
    layer_heads,
    layer_widths,
    put_together,
    slim_layers,
    told_apart,
    zeroed_layers,
)
from pruning.slim.packed import PackedBatch
from pruning.tensor_sizes import PRUNABLE_SLOTS
from tests.pruning.parts import dense_model, logits_of, mask_of, masking, sequences_of, with_units

LENGTHS = (7, 3, 20, 20, 1)
PRUNABLE = ("qkv.weight", "attention_output.weight", "ffn_in.weight", "ffn_out.weight")


def assert_slim_is_masked(base: BaseModel, mask: StructureMask) -> None:
    sequences = sequences_of(LENGTHS, vocabulary=base.shape.vocabulary, pairs=True)
    with torch.inference_mode():
        masked = dense_model(base)(PackedBatch.from_sequences(sequences), masking(mask, base.shape.head_dim))
    slim = logits_of(build_slim(base, slim_layers(base, mask)), sequences)
    torch.testing.assert_close(slim, masked, atol=1e-4, rtol=0)


ALL, NONE = range(64), range(0)


@pytest.mark.parametrize(
    ("heads", "neurons"),
    [
        ([[0, 1, 2, 3], [0, 1, 2, 3]], [ALL, ALL]),
        ([[1, 3], [0]], [range(0, 64, 2), range(16)]),
        ([[], [2]], [ALL, ALL]),
        ([[0, 1], []], [range(40), ALL]),
        ([[3], [3]], [NONE, range(63, 64)]),
        ([[0, 1, 2, 3], [0]], [ALL, NONE]),
        ([[], []], [NONE, NONE]),
    ],
)
def test_the_slim_model_gives_the_masked_models_logits(
    base: BaseModel, heads: list[list[int]], neurons: list[range]
) -> None:
    assert_slim_is_masked(base, mask_of(base.shape, heads, neurons))


@settings(max_examples=25)
@given(
    heads=st.lists(st.sets(st.integers(0, 3)), min_size=2, max_size=2),
    neurons=st.lists(st.sets(st.integers(0, 63)), min_size=2, max_size=2),
)
def test_any_slim_model_gives_its_masked_models_logits(
    base: BaseModel, heads: list[set[int]], neurons: list[set[int]]
) -> None:
    assert_slim_is_masked(base, mask_of(base.shape, heads, neurons))


@pytest.mark.parametrize("dims", [HeadDims(8, 8), HeadDims(1, 8), HeadDims(8, 3), HeadDims(4, 4)])
def test_the_tensors_tell_how_many_heads_there_are_and_of_what(base: BaseModel, dims: HeadDims) -> None:
    heads_and_neurons = mask_of(base.shape, [[1, 3], [0, 1, 2]], [ALL, NONE])
    mask = with_units(heads_and_neurons, base.shape, [dims, base.shape.whole])
    layers = slim_layers(base, mask)
    assert [(heads.count, heads.dims) for heads in layer_heads(layers, base.shape)] == [(2, dims), (3, (8, 8))]
    assert (mask.head_counts, mask.head_dims(base.shape)) == ([2, 3], [dims, (8, 8)])
    assert len(layers) == len(slim_layers(base, heads_and_neurons)) + (dims != base.shape.whole)
    kept = sum(tensor.numel() for name, tensor in layers.items() if name.endswith(PRUNABLE))
    assert mask.sparsity(base.shape) == 1 - kept / base.shape.prunable_weights


def test_a_layer_that_lost_all_heads_has_none_to_count(base: BaseModel) -> None:
    mask = with_units(mask_of(base.shape, [[], [0]], [ALL, ALL]), base.shape, [HeadDims(2, 2), HeadDims(2, 2)])
    assert mask.head_dims(base.shape) == [base.shape.whole, HeadDims(2, 2)]
    layers = slim_layers(base, mask)
    assert "layers.0.head_count" not in layers
    assert logits_of(build_slim(base, layers), sequences_of([5], vocabulary=base.shape.vocabulary)).isfinite().all()


@pytest.mark.parametrize("count", [0, 3])
def test_a_count_of_heads_that_the_matrices_do_not_have_is_refused(base: BaseModel, count: int) -> None:
    mask = with_units(mask_of(base.shape, [[0, 1], [0]], [ALL, ALL]), base.shape, [HeadDims(4, 4), HeadDims(8, 8)])
    layers = slim_layers(base, mask) | {"layers.0.head_count": torch.tensor(count)}
    with pytest.raises(StoreError, match="the layers do not fit the model"):
        build_slim(base, layers)


def test_the_mask_that_keeps_everything_copies_every_weight(base: BaseModel) -> None:
    layers = slim_layers(base, dense_mask(base.shape))
    for layer in range(base.shape.num_layers):
        for slot, fused in zip(("query", "key", "value"), layers[f"layers.{layer}.qkv.weight"].chunk(3), strict=True):
            assert torch.equal(fused, base.tensors[f"layers.{layer}.{slot}.weight"])
        for slot, part in product(("attention_output", "ffn_in", "ffn_out"), ("weight", "bias")):
            name = f"layers.{layer}.{slot}.{part}"
            assert torch.equal(layers[name], base.tensors[name])


def test_only_the_rows_and_columns_kept_are_copied(base: BaseModel) -> None:
    layers = slim_layers(base, mask_of(base.shape, [[2], range(4)], [[5, 60], range(64)]))
    dims = list(range(16, 24))
    assert torch.equal(layers["layers.0.qkv.weight"][8:16], base.tensors["layers.0.key.weight"][dims])
    assert torch.equal(layers["layers.0.qkv.bias"][16:], base.tensors["layers.0.value.bias"][dims])
    assert torch.equal(
        layers["layers.0.attention_output.weight"], base.tensors["layers.0.attention_output.weight"][:, dims]
    )
    assert torch.equal(layers["layers.0.ffn_in.weight"], base.tensors["layers.0.ffn_in.weight"][[5, 60]])
    assert torch.equal(layers["layers.0.ffn_out.weight"], base.tensors["layers.0.ffn_out.weight"][:, [5, 60]])


def test_a_reconstructed_output_projection_takes_the_place_of_the_cut_one(base: BaseModel) -> None:
    new = torch.full((32, 2), 7.0)
    layers = slim_layers(base, mask_of(base.shape, [range(4)] * 2, [[5, 60], range(64)]), {(0, "ffn_out"): new})
    assert torch.equal(layers["layers.0.ffn_out.weight"], new)
    assert torch.equal(layers["layers.1.ffn_out.weight"], base.tensors["layers.1.ffn_out.weight"])


def test_zeroed_weights_are_exactly_zero_and_the_others_untouched(base: BaseModel) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = {
        name: torch.rand(weight.shape, generator=generator) < 0.5 for name, weight in base.prunable_weights().items()
    }
    layers = zeroed_layers(base, mask)
    fused = torch.cat([base.tensors[f"layers.1.{slot}.weight"] for slot in PRUNABLE_SLOTS[:3]])
    kept = torch.cat([mask[f"layers.1.{slot}.weight"] for slot in PRUNABLE_SLOTS[:3]])
    assert torch.equal(layers["layers.1.qkv.weight"], torch.where(kept, fused, torch.zeros(())))


def test_zeroing_leaves_the_base_model_as_it_was(base: BaseModel) -> None:
    before = {name: weight.clone() for name, weight in base.prunable_weights().items()}
    zeroed_layers(base, {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in before.items()})
    assert all(torch.equal(base.tensors[name], weight) for name, weight in before.items())


def test_variants_share_the_tensors_that_no_cut_touches(base: BaseModel) -> None:
    one, two = dense_model(base), build_slim(base, slim_layers(base, mask_of(base.shape, [[0]] * 2, [[0]] * 2)))
    assert one.word.weight.data_ptr() == two.word.weight.data_ptr() == base.tensors["embeddings.word.weight"].data_ptr()


def test_a_built_model_is_frozen_and_in_eval_mode(base: BaseModel) -> None:
    model = dense_model(base)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("heads", "neurons"), [([4, 4], [64, 64]), ([0, 3], [1, 0])])
def test_the_widths_are_read_from_the_tensors(base: BaseModel, heads: list[int], neurons: list[int]) -> None:
    mask = mask_of(base.shape, [range(kept) for kept in heads], [range(kept) for kept in neurons])
    assert layer_widths(slim_layers(base, mask), base.shape) == (heads, neurons)


def test_what_was_told_apart_is_put_together(base: BaseModel) -> None:
    whole = slim_layers(base, mask_of(base.shape, [[0, 3], [1]], [range(5), range(9)]))
    matrices = {name: tensor for name, tensor in whole.items() if tensor.ndim == 2}
    parts = {name: part for held, rows in matrices.items() for name, part in told_apart(held, rows).items()}
    assert parts.keys() == base.prunable_weights().keys()
    together = put_together(parts)
    assert together.keys() == matrices.keys()
    assert all(torch.equal(together[name], tensor) for name, tensor in matrices.items())


def test_a_missing_tensor_is_refused_by_name(base: BaseModel) -> None:
    layers = slim_layers(base, dense_mask(base.shape))
    del layers["layers.1.ffn_norm.bias"]
    with pytest.raises(StoreError, match=r"(?s)do not fit the model .*layers\.1\.ffn_norm\.bias"):
        build_slim(base, layers)


def test_a_layer_too_many_is_refused_by_name(base: BaseModel) -> None:
    layers = slim_layers(base, dense_mask(base.shape)) | {"layers.2.ffn_in.bias": torch.zeros(64)}
    with pytest.raises(StoreError, match=r"layers\.2\.ffn_in\.bias"):
        build_slim(base, layers)


def test_a_tensor_of_the_wrong_width_is_refused_by_name(base: BaseModel) -> None:
    layers = slim_layers(base, dense_mask(base.shape)) | {"layers.0.ffn_out.weight": torch.zeros(32, 63)}
    with pytest.raises(StoreError, match=r"layers\.0\.ffn_out\.weight"):
        build_slim(base, layers)
