from itertools import pairwise

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pruning.cost import HeadDims, structured_cost
from pruning.encoder import BaseModel
from pruning.slim.convert import build_slim, slim_layers
from pruning.slim.packed import PackedBatch
from tests.pruning.parts import mask_of, reference_model, sequences_of, with_units

WHOLE = [HeadDims(8, 8)] * 2
WIDTHS = [
    ([4, 4], [64, 64], WHOLE),
    ([2, 3], [16, 48], WHOLE),
    ([0, 4], [64, 0], WHOLE),
    ([4, 0], [0, 32], WHOLE),
    ([2, 3], [16, 48], [HeadDims(3, 7), HeadDims(6, 2)]),
]


def test_a_head_and_a_neuron_own_the_weights_that_go_with_them(base: BaseModel) -> None:
    shape = base.shape
    per_layer = shape.num_heads * shape.head_weights + shape.ffn * shape.neuron_weights
    stored = sum(weight.numel() for name, weight in base.prunable_weights().items() if name.startswith("layers.0."))
    assert per_layer == stored


def test_the_dense_parameters_are_those_of_transformers(base: BaseModel) -> None:
    cost = structured_cost(base.shape, [4, 4], [64, 64])
    assert cost.parameters == sum(parameter.numel() for parameter in reference_model(base).parameters())


@pytest.mark.parametrize(("heads", "neurons", "dims"), WIDTHS)
def test_the_parameters_are_those_that_the_slim_model_holds(
    base: BaseModel, heads: list[int], neurons: list[int], dims: list[HeadDims]
) -> None:
    mask = mask_of(base.shape, [range(kept) for kept in heads], [range(kept) for kept in neurons])
    model = build_slim(base, slim_layers(base, with_units(mask, base.shape, dims)))
    cost = structured_cost(base.shape, heads, neurons, dims)
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert cost.bytes == sum(parameter.nbytes for parameter in model.parameters())


@pytest.mark.parametrize(("heads", "neurons", "dims"), WIDTHS)
@pytest.mark.parametrize("length", [1, 48])
def test_the_macs_are_those_that_a_forward_pass_of_the_encoder_does(
    base: BaseModel, heads: list[int], neurons: list[int], dims: list[HeadDims], length: int
) -> None:
    mask = mask_of(base.shape, [range(kept) for kept in heads], [range(kept) for kept in neurons])
    mask = with_units(mask, base.shape, dims)
    # Weights that train go through the plain kernels, whose work the counter sees.
    model = build_slim(base, slim_layers(base, mask)).requires_grad_(True)
    batch = PackedBatch.from_sequences(sequences_of([length], vocabulary=base.shape.vocabulary))
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(batch)
    head = base.shape.hidden * (base.shape.hidden + base.shape.labels)
    macs = structured_cost(base.shape, heads, neurons, dims, length=length).macs
    assert macs == counter.get_total_flops() // 2 - head


def test_the_length_that_the_macs_are_of_is_stated(base: BaseModel) -> None:
    assert structured_cost(base.shape, [4, 4], [64, 64], length=17).macs_length == 17


def test_bytes_follow_the_width_of_a_parameter(base: BaseModel) -> None:
    whole = structured_cost(base.shape, [4, 4], [64, 64])
    assert structured_cost(base.shape, [4, 4], [64, 64], bytes_per_parameter=2).bytes * 2 == whole.bytes


def test_every_head_less_costs_less(base: BaseModel) -> None:
    costs = [structured_cost(base.shape, [heads, 4], [64, 64]) for heads in (4, 3, 2, 1, 0)]
    for more, less in pairwise(costs):
        assert (more.parameters, more.prunable_parameters, more.macs) > (
            less.parameters,
            less.prunable_parameters,
            less.macs,
        )
