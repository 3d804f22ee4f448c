"""SlimBert: a BERT-like encoder whose layers each have their own number of heads and neurons, with its head.

Tokens are packed: a linear layer sees real tokens, and a few rows of none that round their number up for the sake of
the kernels. Where the head reads nothing but the first token of each sequence, of the last layer only that one is
computed (with the keys and values of all). A layer may have no head or no neuron at all: then its sublayer is the
residual and the output bias, at no cost.

Letters: T tokens, B sequences, R rows that a layer computes (T; in the last layer below a pooled head B), D hidden,
E width of the embeddings, N heads of a layer, H dimensions of each for queries and keys, V for values, F neurons of a
layer.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning.cost import Shape
from pruning.errors import PrecisionError
from pruning.slim.attention import Heads
from pruning.slim.linear import Linear, rounded_rows
from pruning.slim.packed import Layout, PackedBatch
from pruning.slim.quantized import QuantizedLinear


class Site(StrEnum):
    """The places of a layer where a tap may look: where structures end, and what the norm after a sublayer reads."""

    ATTENTION = "attention"
    """Input of the attention output projection, [R, N*V]: head outputs side by side."""
    FFN = "ffn"
    """Input of the second FFN matrix, [R, F]: neuron activations."""
    ATTENTION_SUM = "attention_sum"
    """Residual and output of the attention sublayer, [R, D]."""
    FFN_SUM = "ffn_sum"
    """Residual and output of the FFN sublayer, [R, D]."""


Tap = Callable[[int, Site, Tensor, Tensor], Tensor]
"""(layer, site, values there [R, width], sequence of each row [R]) -> the values to go on with."""

HEAD_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": functional.relu,
    "gelu": functional.gelu,
}
"""What may stand between the pooler and the classifier, by Hugging Face's names."""

Visit = Callable[[Site, Tensor], Tensor]
"""A tap that already knows its layer and the rows' sequences."""


class SlimLayer(nn.Module):
    """One encoder layer with its own heads and ``num_neurons`` neurons, of either of which there may be 0.

    Heads that lost dimensions are counted by the tensor ``head_count``: matrices do not tell two heads of 16 from
    four of 8.
    """

    def __init__(
        self,
        shape: Shape,
        heads: Heads,
        num_neurons: int,
        activation: str,
        norm_eps: float,
        *,
        quantized: bool,
    ) -> None:
        """Allocate; the weights are loaded afterwards."""
        super().__init__()
        self.heads = heads
        if heads.dims != shape.whole:
            self.register_buffer("head_count", torch.tensor(heads.count))
        self.num_neurons = num_neurons
        self.activation = activation
        linear = QuantizedLinear if quantized else Linear
        self.qkv = linear(shape.hidden, 2 * heads.query_width + heads.value_width)
        self.attention_output = linear(heads.value_width, shape.hidden)
        self.attention_norm = nn.LayerNorm(shape.hidden, eps=norm_eps)
        self.ffn_out = linear(num_neurons, shape.hidden)
        if isinstance(self.ffn_out, QuantizedLinear):
            self.ffn_in: nn.Module = QuantizedLinear(shape.hidden, num_neurons, feeds=self.ffn_out)
        else:
            self.ffn_in = Linear(shape.hidden, num_neurons)
        self.ffn_norm = nn.LayerNorm(shape.hidden, eps=norm_eps)

    def forward(self, hidden_TD: Tensor, first_R: Tensor | None, layout: Layout, visit: Visit | None) -> Tensor:
        """Return the next hidden states [R, D]: of the tokens ``first_R``, or of all where there is None."""
        rows_RD = hidden_TD if first_R is None else hidden_TD.index_select(0, first_R)
        middle_RD: Tensor = self.attention_norm(self._add_attention(hidden_TD, first_R, rows_RD, layout, visit))
        output_RD: Tensor = self.ffn_norm(self._add_ffn(middle_RD, visit))
        return output_RD

    def _add_attention(
        self,
        hidden_TD: Tensor,
        first_R: Tensor | None,
        rows_RD: Tensor,
        layout: Layout,
        visit: Visit | None,
    ) -> Tensor:
        """Return the rows with what the attention sublayer adds to them."""
        if self.heads.count == 0:
            return rows_RD + self.attention_output.bias
        context_RNV = self.attention_inputs(hidden_TD, first_R, rows_RD, layout)
        if visit is None:
            return cast(Tensor, self.attention_output(context_RNV, residual=rows_RD))
        return visit(Site.ATTENTION_SUM, rows_RD + self.attention_output(visit(Site.ATTENTION, context_RNV)))

    def attention_inputs(self, hidden_TD: Tensor, first_R: Tensor | None, rows_RD: Tensor, layout: Layout) -> Tensor:
        """Return the input [R, N*V] of the attention output projection: head outputs side by side."""
        width = self.heads.query_width
        if first_R is not None:
            query_RNH, key_value_TW = self.qkv(rows_RD, stop=width), self.qkv(hidden_TD, start=width)
        else:
            query_RNH, key_value_TW = self.qkv(hidden_TD).split((width, width + self.heads.value_width), dim=1)
        return layout.context(query_RNH, key_value_TW, self.heads, first_only=first_R is not None)

    def _add_ffn(self, middle_RD: Tensor, visit: Visit | None) -> Tensor:
        """Return the rows with what the FFN adds to them."""
        if self.num_neurons == 0:
            return middle_RD + self.ffn_out.bias
        neurons_RF = self.ffn_inputs(middle_RD)
        if visit is None:
            return cast(Tensor, self.ffn_out(neurons_RF, residual=middle_RD))
        return visit(Site.FFN_SUM, middle_RD + self.ffn_out(visit(Site.FFN, neurons_RF)))

    def ffn_inputs(self, middle_RD: Tensor) -> Tensor:
        """Return the input [R, F] of the second FFN matrix: neuron activations."""
        return cast(Tensor, self.ffn_in(middle_RD, activation=self.activation))


class SlimBert(nn.Module):
    """An encoder with its head over packed batches.

    An architecture without token types has no table of them, one with a single type gives it to every token, whatever
    the tokenizer says; embeddings of another width than the layers' are projected.
    """

    def __init__(
        self,
        shape: Shape,
        heads: Sequence[Heads],
        neurons: Sequence[int],
        activation: str,
        norm_eps: float,
        *,
        head_activation: str = "tanh",
        quantized: bool = False,
    ) -> None:
        """Allocate with ``heads[l]`` and ``neurons[l]`` neurons in layer ``l``; load the weights afterwards."""
        super().__init__()
        self.quantized = quantized
        self.head = shape.head
        self.head_activation = HEAD_ACTIVATIONS[head_activation]
        width = shape.embedding_width
        self.word = nn.Embedding(shape.vocabulary, width)
        self.position = nn.Embedding(shape.positions, width)
        self.token_type = nn.Embedding(shape.token_types, width) if shape.token_types else None
        self.embedding_norm = nn.LayerNorm(width, eps=norm_eps)
        self.projection = None if shape.embedding is None else Linear(width, shape.hidden)
        self.layers = nn.ModuleList(
            SlimLayer(shape, layer_heads, num_neurons, activation, norm_eps, quantized=quantized)
            for layer_heads, num_neurons in zip(heads, neurons, strict=True)
        )
        self.pooler = Linear(shape.hidden, shape.hidden) if shape.head.pooled else None
        self.classifier = Linear(shape.hidden, shape.labels)

    def forward(self, batch: PackedBatch, tap: Tap | None = None) -> Tensor:
        """Return logits [B, labels], or [T, labels] of a head that reads every token.

        ``tap`` sees, and may replace, the values at every site.

        Raises:
            PrecisionError: a tap into a quantized model, whose neurons are integers.
        """
        if tap is not None and self.quantized:
            raise PrecisionError("a tap sees real values; look into the float32 model that this one was made of")
        hidden, first_R = self.embedded(batch), batch.first_B
        if tap is None:  # it would see rows of no sequence
            hidden, first_R = _filled_up(hidden), _filled_up(first_R)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            first_only = index == last and self.pooler is not None
            asking = first_R if first_only else None
            hidden = layer(hidden, asking, batch.layout, _visit(tap, index, batch, first_only))
        if self.pooler is not None:
            hidden = self.head_activation(self.pooler(hidden))
        logits: Tensor = self.classifier(hidden)
        return logits[: batch.num_sequences if self.pooler is not None else batch.num_tokens]

    def embedded(self, batch: PackedBatch) -> Tensor:
        """Return the hidden states [T, D] that the first layer reads."""
        hidden_TE = self.word(batch.ids_T) + self.position(batch.positions_T)
        if self.token_type is not None:
            single = self.token_type.num_embeddings == 1
            hidden_TE = hidden_TE + (self.token_type.weight[0] if single else self.token_type(batch.type_ids_T))
        hidden_TE = self.embedding_norm(hidden_TE)
        return hidden_TE if self.projection is None else cast(Tensor, self.projection(hidden_TE))


def _filled_up(rows: Tensor) -> Tensor:
    """Return a tensor with zeros after its rows, as many as round their number up."""
    missing = rounded_rows(rows.shape[0]) - rows.shape[0]
    return functional.pad(rows, (0, 0) * (rows.dim() - 1) + (0, missing)) if missing else rows


def _visit(tap: Tap | None, layer: int, batch: PackedBatch, first_only: bool) -> Visit | None:
    if tap is None:
        return None
    sequence_R = torch.arange(batch.num_sequences, device=batch.sequence_T.device) if first_only else batch.sequence_T
    return lambda site, values_RW: tap(layer, site, values_RW, sequence_R)
