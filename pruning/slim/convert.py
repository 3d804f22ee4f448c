"""Build SlimBert models: dense, cut down to the kept structures, with zeroed weights, or from a stored variant."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pruning.cost import HeadDims, Shape
from pruning.encoder import BaseModel
from pruning.errors import StoreError
from pruning.masks.structures import StructureMask
from pruning.masks.weights import WeightMask
from pruning.slim.attention import Heads
from pruning.slim.bert import SlimBert
from pruning.slim.quantized import require_integers
from pruning.spec import Precision
from pruning.tensor_sizes import PRUNABLE_SLOTS

SHARED = {
    "word.weight": "embeddings.word.weight",
    "position.weight": "embeddings.position.weight",
    "token_type.weight": "embeddings.token_type.weight",
    "embedding_norm.weight": "embeddings.norm.weight",
    "embedding_norm.bias": "embeddings.norm.bias",
    "projection.weight": "embeddings.project.weight",
    "projection.bias": "embeddings.project.bias",
    "pooler.weight": "pooler.weight",
    "pooler.bias": "pooler.bias",
    "classifier.weight": "classifier.weight",
    "classifier.bias": "classifier.bias",
}
"""Slots that no cut touches; every variant of a model shares those of these tensors that its architecture has."""

DTYPES = {
    Precision.FLOAT32: torch.float32,
    Precision.FLOAT16: torch.float16,
    Precision.BFLOAT16: torch.bfloat16,
    Precision.INT8: torch.float32,
}
"""What everything but quantized matrices is held and computed in."""

A_NORM = "layers.0.ffn_norm.weight"
"""A tensor of every model that is in its precision, quantized or not."""

FUSED = ("query", "key", "value")
"""Slots whose matrices the model holds as one, ``qkv``, from top to bottom."""

HEAD_COUNT = "layers.{}.head_count"
"""int64 []: heads of a layer; there only where they are not whole."""

SolvedWeights = Mapping[tuple[int, str], Tensor]
"""(layer, slot) -> reconstructed weight of the kept inputs or outputs: ``attention_output``, ``ffn_out`` or ``key``."""


def dense_mask(shape: Shape) -> StructureMask:
    """Return the mask that keeps everything."""
    return StructureMask(
        torch.ones(shape.num_layers, shape.num_heads, dtype=torch.bool),
        torch.ones(shape.num_layers, shape.ffn, dtype=torch.bool),
    )


def slim_layers(base: BaseModel, mask: StructureMask, solved: SolvedWeights | None = None) -> dict[str, Tensor]:
    """Return the encoder layers' tensors with only the kept rows and columns copied.

    ``solved`` replaces matrices by reconstructed ones. Output biases always survive.
    """
    layers: dict[str, Tensor] = {}
    solved = {} if solved is None else solved
    head_dims = mask.head_dims(base.shape)
    for layer in range(base.shape.num_layers):
        qk, vo = mask.kept_dims(layer, base.shape.head_dim)
        neurons = mask.kept_neurons(layer)
        source = {slot: base.tensors[f"layers.{layer}.{slot}.weight"] for slot in PRUNABLE_SLOTS}
        bias = {slot: base.tensors[f"layers.{layer}.{slot}.bias"] for slot in PRUNABLE_SLOTS}
        name = f"layers.{layer}"
        rows = dict(zip(FUSED, (qk, qk, vo), strict=True))
        fused = [solved.get((layer, slot), source[slot][kept]) for slot, kept in rows.items()]
        layers[f"{name}.qkv.weight"] = torch.cat(fused)
        layers[f"{name}.qkv.bias"] = torch.cat([bias[slot][kept] for slot, kept in rows.items()])
        if head_dims[layer] != base.shape.whole:
            layers[HEAD_COUNT.format(layer)] = torch.tensor(mask.head_counts[layer])
        layers[f"{name}.ffn_in.weight"] = source["ffn_in"][neurons]
        layers[f"{name}.ffn_in.bias"] = bias["ffn_in"][neurons]
        for slot, kept in (("attention_output", vo), ("ffn_out", neurons)):
            layers[f"{name}.{slot}.weight"] = solved.get((layer, slot), source[slot][:, kept]).contiguous()
            layers[f"{name}.{slot}.bias"] = bias[slot]
        for norm in ("attention_norm", "ffn_norm"):
            for part in ("weight", "bias"):
                layers[f"{name}.{norm}.{part}"] = base.tensors[f"layers.{layer}.{norm}.{part}"]
    return layers


def told_apart(name: str, rows: Tensor) -> dict[str, Tensor]:
    """Return a tensor of a full-width model by slot names: a fused one as its parts, any other as it is."""
    if ".qkv." not in name:
        return {name: rows}
    return {name.replace("qkv", slot): part for slot, part in zip(FUSED, rows.chunk(3), strict=True)}


def put_together(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of slot names as the model holds them: what ``told_apart`` took apart."""
    whole: dict[str, Tensor] = {}
    for name, part in parts.items():
        _, number, slot, kind = name.split(".")
        if slot == FUSED[0]:
            whole[f"layers.{number}.qkv.{kind}"] = torch.cat([parts[f"layers.{number}.{one}.{kind}"] for one in FUSED])
        elif slot not in FUSED:
            whole[name] = part
    return whole


def zeroed_layers(base: BaseModel, mask: WeightMask) -> dict[str, Tensor]:
    """Return the encoder layers' tensors at full size, the weights not kept set to zero."""
    tensors = dict(base.tensors)
    for name, kept in mask.items():
        tensors[name] = tensors[name] * kept
    return slim_layers(replace(base, tensors=tensors), dense_mask(base.shape))


def build_slim(base: BaseModel, layers: Mapping[str, Tensor]) -> SlimBert:
    """Return the model of ``layers`` (from ``slim_layers`` or a stored variant) over the base's shared tensors.

    Tensors are referenced, not copied; shared ones of another precision than the layers' are converted. The model is
    in eval mode with frozen parameters.

    Raises:
        StoreError: the tensors do not fit the base model.
        PrecisionError: they are integers, which this machine does not multiply.
    """
    quantized = any(tensor.dtype == torch.int8 for tensor in layers.values())
    if quantized:
        require_integers()
    try:
        dtype = layers[A_NORM].dtype
        state = {name: base.tensors[slot].to(dtype) for name, slot in shared_slots(base).items()} | dict(layers)
        _, neurons = layer_widths(layers, base.shape)
        with torch.device("meta"):
            model = SlimBert(
                base.shape,
                layer_heads(layers, base.shape),
                neurons,
                base.activation,
                base.norm_eps,
                head_activation=base.head_activation,
                quantized=quantized,
            )
        model.load_state_dict(state, assign=True)
    except (KeyError, RuntimeError, ZeroDivisionError) as error:
        raise StoreError(
            f"the layers do not fit the model {base.name}: {error}; cut them from this very model again"
        ) from error
    return model.requires_grad_(False).eval()


def shared_slots(base: BaseModel) -> dict[str, str]:
    """Return the shared slots that a model has: name in ``SlimBert`` -> slot."""
    return {name: slot for name, slot in SHARED.items() if slot in base.tensors}


def layer_widths(layers: Mapping[str, Tensor], shape: Shape) -> tuple[list[int], list[int]]:
    """Return (heads, neurons) of every layer as the tensors have them."""
    neurons = [layers[f"layers.{i}.ffn_in.weight"].shape[0] for i in range(shape.num_layers)]
    return [heads.count for heads in layer_heads(layers, shape)], neurons


def layer_heads(layers: Mapping[str, Tensor], shape: Shape) -> list[Heads]:
    """Return the heads of every layer as the tensors have them."""
    found = []
    for index in range(shape.num_layers):
        values = layers[f"layers.{index}.attention_output.weight"].shape[1]
        queries = (layers[f"layers.{index}.qkv.weight"].shape[0] - values) // 2
        stored = layers.get(HEAD_COUNT.format(index))
        count = values // shape.head_dim if stored is None else int(stored)
        dims = shape.whole if stored is None else HeadDims(queries // count, values // count)
        found.append(Heads(count, dims, shape.head_dim**-0.5))
    return found


def in_dtype(layers: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the layers with their real numbers in ``dtype``."""
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in layers.items()}


def head_dims(layers: Mapping[str, Tensor], shape: Shape) -> list[HeadDims]:
    """Return the dimensions of the heads of every layer as the tensors have them."""
    return [heads.dims for heads in layer_heads(layers, shape)]


def held_bytes(base: BaseModel, layers: Mapping[str, Tensor]) -> int:
    """Return the size of a model's tensors: its layers, and the shared ones in their precision."""
    itemsize = layers[A_NORM].dtype.itemsize
    shared = sum(base.tensors[slot].numel() * itemsize for slot in shared_slots(base).values())
    return shared + sum(tensor.nbytes for tensor in layers.values())
