"""Build SlimBert models: dense, cut down to the kept structures, with zeroed weights, or from a stored variant."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pruning.cost import Shape
from pruning.encoder import BaseModel
from pruning.errors import StoreError
from pruning.masks.structures import StructureMask
from pruning.masks.weights import WeightMask
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

OutputWeights = Mapping[tuple[int, str], Tensor]
"""(layer, ``attention_output`` or ``ffn_out``) -> reconstructed weight over the kept inputs."""


def dense_mask(shape: Shape) -> StructureMask:
    """Return the mask that keeps everything."""
    return StructureMask(
        torch.ones(shape.num_layers, shape.num_heads, dtype=torch.bool),
        torch.ones(shape.num_layers, shape.ffn, dtype=torch.bool),
    )


def slim_layers(base: BaseModel, mask: StructureMask, outputs: OutputWeights | None = None) -> dict[str, Tensor]:
    """Return the encoder layers' tensors with only the kept rows and columns copied.

    ``outputs`` replaces output projections by reconstructed ones. Output biases always survive.
    """
    layers: dict[str, Tensor] = {}
    for layer in range(base.shape.num_layers):
        heads = mask.kept_heads(layer)
        dims = (heads[:, None] * base.shape.head_dim + torch.arange(base.shape.head_dim)).flatten()
        neurons = mask.kept_neurons(layer)
        source = {slot: base.tensors[f"layers.{layer}.{slot}.weight"] for slot in PRUNABLE_SLOTS}
        bias = {slot: base.tensors[f"layers.{layer}.{slot}.bias"] for slot in PRUNABLE_SLOTS}
        name = f"layers.{layer}"
        layers[f"{name}.qkv.weight"] = torch.cat([source[slot][dims] for slot in FUSED])
        layers[f"{name}.qkv.bias"] = torch.cat([bias[slot][dims] for slot in FUSED])
        layers[f"{name}.ffn_in.weight"] = source["ffn_in"][neurons]
        layers[f"{name}.ffn_in.bias"] = bias["ffn_in"][neurons]
        for slot, kept in (("attention_output", dims), ("ffn_out", neurons)):
            cut = source[slot][:, kept] if outputs is None else outputs.get((layer, slot), source[slot][:, kept])
            layers[f"{name}.{slot}.weight"] = cut.contiguous()
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
        heads, neurons = layer_widths(layers, base.shape)
        with torch.device("meta"):
            model = SlimBert(
                base.shape,
                heads,
                neurons,
                base.activation,
                base.norm_eps,
                head_activation=base.head_activation,
                quantized=quantized,
            )
        model.load_state_dict(state, assign=True)
    except (KeyError, RuntimeError) as error:
        raise StoreError(
            f"the layers do not fit the model {base.name}: {error}; cut them from this very model again"
        ) from error
    return model.requires_grad_(False).eval()


def shared_slots(base: BaseModel) -> dict[str, str]:
    """Return the shared slots that a model has: name in ``SlimBert`` -> slot."""
    return {name: slot for name, slot in SHARED.items() if slot in base.tensors}


def layer_widths(layers: Mapping[str, Tensor], shape: Shape) -> tuple[list[int], list[int]]:
    """Return (heads, neurons) of every layer as the tensors have them."""
    heads = [layers[f"layers.{i}.qkv.weight"].shape[0] // (3 * shape.head_dim) for i in range(shape.num_layers)]
    neurons = [layers[f"layers.{i}.ffn_in.weight"].shape[0] for i in range(shape.num_layers)]
    return heads, neurons


def held_bytes(base: BaseModel, layers: Mapping[str, Tensor]) -> int:
    """Return the size of a model's tensors: its layers, and the shared ones in their precision."""
    itemsize = layers[A_NORM].dtype.itemsize
    shared = sum(base.tensors[slot].numel() * itemsize for slot in shared_slots(base).values())
    return shared + sum(tensor.nbytes for tensor in layers.values())
