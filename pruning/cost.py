"""What a model costs: parameters, multiply-accumulates at a stated length, bytes. Arithmetic only.

Letters: D hidden, N heads, H head dimension, F FFN neurons, L layers, S sequence length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pruning.heads import Head

MACS_LENGTH = 128
"""Sequence length at which multiply-accumulates are stated."""


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
    def head_weights(self) -> int:
        """Linear weights of one attention head: its rows of Q, K, V and its columns of O."""
        return 4 * self.hidden * self.head_dim

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
    *,
    bytes_per_parameter: int = 4,
    length: int = MACS_LENGTH,
) -> Cost:
    """Return the cost of an encoder with ``heads[l]`` heads and ``neurons[l]`` neurons in layer ``l``.

    Where the head reads the first token alone, the last layer is computed for that one except for its keys and
    values.
    """
    prunable = sum(heads) * shape.head_weights + sum(neurons) * shape.neuron_weights
    biases = sum(heads) * 3 * shape.head_dim + sum(neurons) + shape.num_layers * 2 * shape.hidden
    norms = 2 * shape.num_layers * 2 * shape.hidden
    parameters = prunable + biases + norms + _embedding_parameters(shape) + _head_parameters(shape)
    macs = 0
    for layer, (num_heads, num_neurons) in enumerate(zip(heads, neurons, strict=True)):
        rows = 1 if layer == shape.num_layers - 1 and shape.head.pooled else length
        attention_width = num_heads * shape.head_dim
        macs += shape.hidden * attention_width * 2 * (rows + length)
        macs += 2 * rows * length * attention_width
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
