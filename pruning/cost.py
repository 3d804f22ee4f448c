"""What a model costs: parameters, multiply-accumulates at a stated length, bytes. Arithmetic only.

Letters: D hidden, N heads, H head dimension, F FFN neurons, L layers, S sequence length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pruning.heads import Head

MACS_LENGTH = 128
"""Sequence length at which multiply-accumulates are stated."""


class HeadDims(NamedTuple):
    """How many dimensions each head of a layer has: of all of them that are there the same."""

    qk: int
    """Of queries and keys, over which their products are summed."""
    vo: int
    """Of values, which are what the output projection reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a dense encoder with its head."""

    hidden: int
    num_layers: int
    num_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    positions: int
    token_types: int
    """0 where the architecture has none."""
    labels: int
    """Numbers that the head gives, for a text or for every token."""
    embedding: int | None = None
    """Width of the embeddings where they are projected to ``hidden``; None where they have that width."""
    head: Head = Head.LABEL

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings."""
        return self.hidden if self.embedding is None else self.embedding

    @property
    def whole(self) -> HeadDims:
        """The dimensions of a head that lost none."""
        return HeadDims(self.head_dim, self.head_dim)

    @property
    def head_weights(self) -> int:
        """Linear weights of one whole attention head: its rows of Q, K, V and its columns of O."""
        return self.weights_of_head(self.whole)

    def weights_of_head(self, dims: HeadDims) -> int:
        """Return the Linear weights of one attention head of so many dimensions."""
        return 2 * self.hidden * (dims.qk + dims.vo)

    @property
    def neuron_weights(self) -> int:
        """Linear weights of one FFN neuron: its row of the first matrix and its column of the second."""
        return 2 * self.hidden

    @property
    def prunable_weights(self) -> int:
        """All Linear weights of the encoder layers: the denominator of every sparsity."""
        per_layer = self.num_heads * self.head_weights + self.ffn * self.neuron_weights
        return self.num_layers * per_layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one variant costs."""

    parameters: int
    """All parameters, embeddings and head among them (non-zero ones, for an unstructured variant)."""
    prunable_parameters: int
    """Linear weights left in the encoder layers."""
    macs: int
    """Multiply-accumulates of one sequence of ``macs_length`` tokens, embeddings and head left out."""
    macs_length: int
    bytes: int
    """Size of the parameters as they are held in memory."""


def structured_cost(
    shape: Shape,
    heads: Sequence[int],
    neurons: Sequence[int],
    head_dims: Sequence[HeadDims] | None = None,
    *,
    bytes_per_parameter: int = 4,
    length: int = MACS_LENGTH,
) -> Cost:
    """Return the cost of an encoder with ``heads[l]`` heads and ``neurons[l]`` neurons in layer ``l``.

    Heads have ``head_dims[l]`` dimensions there; None: they are whole. Where the model's head reads the first token
    alone, the last layer is computed for that one except for its keys and values.
    """
    dims_each = head_dims or [shape.whole] * shape.num_layers
    layers = list(zip(heads, dims_each, neurons, strict=True))
    prunable = sum(count * shape.weights_of_head(dims) for count, dims, _ in layers)
    prunable += sum(neurons) * shape.neuron_weights
    biases = sum(count * (2 * dims.qk + dims.vo) for count, dims, _ in layers)
    biases += sum(neurons) + shape.num_layers * 2 * shape.hidden
    norms = 2 * shape.num_layers * 2 * shape.hidden
    parameters = prunable + biases + norms + _embedding_parameters(shape) + _head_parameters(shape)
    macs = 0
    for layer, (num_heads, dims, num_neurons) in enumerate(layers):
        rows = 1 if layer == shape.num_layers - 1 and shape.head.pooled else length
        attention_width = num_heads * (dims.qk + dims.vo)
        macs += shape.hidden * attention_width * (rows + length)
        macs += rows * length * attention_width
        macs += num_neurons * shape.neuron_weights * rows
    return Cost(
        parameters=parameters,
        prunable_parameters=prunable,
        macs=macs,
        macs_length=length,
        bytes=parameters * bytes_per_parameter,
    )


def _embedding_parameters(shape: Shape) -> int:
    """Return the parameters of tables, norm and projection."""
    width = shape.embedding_width
    tables = (shape.vocabulary + shape.positions + shape.token_types) * width
    projection = 0 if shape.embedding is None else shape.hidden * (width + 1)
    return tables + 2 * width + projection


def _head_parameters(shape: Shape) -> int:
    """Return the parameters of the pooler, if there is one, and of the classifier."""
    return (shape.labels + shape.hidden * shape.head.pooled) * (shape.hidden + 1)
