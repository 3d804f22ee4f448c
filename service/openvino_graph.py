"""A variant as an OpenVINO graph, made operation by operation from its tensors: nothing is traced or converted.

It computes what ``pruning/slim/bert.py`` computes below a head that reads the first token: tokens packed without
padding, every layer with its own width, of the last layer only the first token of each sequence, a sublayer of no
width as the residual and the output bias.
Attention alone sees a rectangle of the sequences; no query looks at what fills the shorter ones up. Embeddings are
looked up outside: every compiled graph would hold a copy of the tables.

Letters: T rows of tokens, B sequences, S slots of each, D hidden, E width of the embeddings, N heads of a layer, H
dimensions of each for queries and keys, V for values.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from openvino import Model, Type
from openvino import opset15 as ops
from torch import Tensor

from pruning.encoder import BaseModel
from pruning.errors import ModelError
from pruning.slim.attention import Heads
from pruning.slim.convert import layer_heads, shared_slots

INDICES = {"first": 1, "source": 2, "slot": 1}
"""Inputs of 32-bit integers and their ranks: first row of each sequence [B]; row that each slot reads [B, S]; slot of
each row [T]."""
EMBEDDED = "embedded"
"""Input of real numbers, the sum of each row's embeddings [T, E]."""
BIAS = "bias"
"""Input of real numbers, what is added to the score of every slot [B, S]: 0, or ``NOTHING`` where it has no token."""
NOTHING = -1e9


def build_graph(base: BaseModel, layers: Mapping[str, Tensor]) -> Model:
    """Return the graph of ``layers`` (float32 or bfloat16) over the base's shared tensors: logits [B, labels].

    Weights are referenced where they are float32, else copied into it; ``INFERENCE_PRECISION_HINT`` says what a
    compiled graph computes in.

    Raises:
        KeyError: a layer lacks a tensor.
        ModelError: a head that reads every token; the graph computes one of each sequence in its last layer.
    """
    if not base.shape.head.pooled:
        raise ModelError(f"there is no OpenVINO graph of a model for {base.shape.head}; use the engine 'torch'")
    return _Graph(base, layers).model()


class _Graph:
    """Operations over the tensors of one variant."""

    def __init__(self, base: BaseModel, layers: Mapping[str, Tensor]) -> None:
        self._base = base
        self._tensors = {name: base.tensors[slot] for name, slot in shared_slots(base).items()} | dict(layers)
        self._heads = layer_heads(layers, base.shape)
        self._inputs = {name: ops.parameter([-1] * rank, Type.i32, name) for name, rank in INDICES.items()}
        self._inputs[EMBEDDED] = ops.parameter([-1, base.shape.embedding_width], Type.f32, EMBEDDED)
        self._inputs[BIAS] = ops.parameter([-1, -1], Type.f32, BIAS)
        for name, parameter in self._inputs.items():
            parameter.output(0).set_names({name})

    def model(self) -> Model:
        hidden = self._norm(self._inputs[EMBEDDED], "embedding_norm")
        if self._base.shape.embedding is not None:
            hidden = self._linear(hidden, "projection")
        last = self._base.shape.num_layers - 1
        for layer in range(last + 1):
            hidden = self._layer(hidden, layer, first_only=layer == last)
        logits = self._linear(self._activate(self._linear(hidden, "pooler"), self._base.head_activation), "classifier")
        return Model([logits], list(self._inputs.values()), "sparsedial")

    def _layer(self, hidden_TD: Any, layer: int, *, first_only: bool) -> Any:
        name = f"layers.{layer}"
        rows_RD = self._rows(hidden_TD, "first") if first_only else hidden_TD
        attended = self._attention(hidden_TD, rows_RD, name, self._heads[layer], first_only=first_only)
        middle_RD = self._norm(ops.add(attended, rows_RD), f"{name}.attention_norm")
        return self._norm(ops.add(self._ffn(middle_RD, name), middle_RD), f"{name}.ffn_norm")

    def _attention(self, hidden_TD: Any, rows_RD: Any, name: str, heads: Heads, *, first_only: bool) -> Any:
        """Return what the sublayer adds to its rows."""
        if heads.count == 0:
            return self._bias(f"{name}.attention_output")
        queries, values = heads.query_width, heads.value_width
        if first_only:
            query_BRW = ops.unsqueeze(self._linear(rows_RD, f"{name}.qkv", stop=queries), _whole(1))
            key_value = self._linear(hidden_TD, f"{name}.qkv", start=queries)
            key, value = ops.variadic_split(key_value, _whole(-1), _whole([queries, values])).outputs()
        else:
            together = self._linear(hidden_TD, f"{name}.qkv")
            parts = ops.variadic_split(together, _whole(-1), _whole([queries, queries, values]))
            query, key, value = parts.outputs()
            query_BRW = self._rows(query, "source")
        query_BNRH = _split_heads(query_BRW, heads.count, heads.dims.qk)
        key_BNSH = _split_heads(self._rows(key, "source"), heads.count, heads.dims.qk)
        value_BNSV = _split_heads(self._rows(value, "source"), heads.count, heads.dims.vo)
        scale = np.float32(heads.scale)
        # Spelt out: OpenVINO's own attention operator took as long or longer at every length.
        scores = ops.matmul(ops.multiply(query_BNRH, ops.constant(scale)), key_BNSH, False, True)
        scores = ops.add(scores, ops.unsqueeze(self._inputs[BIAS], _whole([1, 2])))
        context_BNRV = ops.matmul(ops.softmax(scores, -1), value_BNSV, False, False)
        context_QNV = ops.reshape(ops.transpose(context_BNRV, _whole([0, 2, 1, 3])), _whole([-1, values]), False)
        context_RNV = context_QNV if first_only else self._rows(context_QNV, "slot")
        return self._linear(context_RNV, f"{name}.attention_output")

    def _ffn(self, middle_RD: Any, name: str) -> Any:
        """Return what the sublayer adds to its rows."""
        if self._tensors[f"{name}.ffn_out.weight"].shape[1] == 0:
            return self._bias(f"{name}.ffn_out")
        neurons_RF = self._activate(self._linear(middle_RD, f"{name}.ffn_in"), self._base.activation)
        return self._linear(neurons_RF, f"{name}.ffn_out")

    def _activate(self, inputs: Any, activation: str) -> Any:
        if activation in ("relu", "tanh"):
            return ops.relu(inputs) if activation == "relu" else ops.tanh(inputs)
        return ops.gelu(inputs, {"gelu": "erf", "gelu_new": "tanh"}[activation])

    def _linear(self, inputs: Any, name: str, start: int = 0, stop: int | None = None) -> Any:
        product = ops.matmul(inputs, self._constant(f"{name}.weight", start, stop), False, True)
        return ops.add(product, self._bias(name, start, stop))

    def _bias(self, name: str, start: int = 0, stop: int | None = None) -> Any:
        return ops.constant(_array(self._tensors[f"{name}.bias"][start:stop])[None])

    def _norm(self, inputs: Any, name: str) -> Any:
        scaled = ops.multiply(
            ops.mvn(inputs, _whole([-1]), True, self._base.norm_eps, "inside_sqrt"),
            ops.constant(_array(self._tensors[f"{name}.weight"])[None]),
        )
        return ops.add(scaled, self._bias(name))

    def _rows(self, values: Any, indices: str) -> Any:
        return ops.gather(values, self._inputs[indices], _whole(0))

    def _constant(self, name: str, start: int = 0, stop: int | None = None) -> Any:
        return ops.constant(_array(self._tensors[name][start:stop]), shared_memory=True)


def _split_heads(values_BXW: Any, count: int, dims: int) -> Any:
    """Return the parts of ``count`` heads, of ``dims`` numbers each, [B, count, X, dims]."""
    return ops.transpose(ops.reshape(values_BXW, _whole([0, 0, count, dims]), True), _whole([0, 2, 1, 3]))


def _array(tensor: Tensor) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Return a float32 tensor's own memory, or a copy of another's values."""
    array: np.ndarray[Any, np.dtype[np.float32]] = tensor.detach().float().contiguous().numpy()
    return array


def _whole(values: int | list[int]) -> Any:
    return ops.constant(np.array(values, dtype=np.int64))
