"""Models of a given shape with random weights, and even cuts of them: for speeds, which do not ask what was learnt."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pruning.cost import Shape
from pruning.encoder import BaseModel
from pruning.errors import SpecError
from pruning.masks.structures import ROUND_TO, StructureMask
from pruning.tokenization import Encoded

SHAPES = {
    "bert-base": (768, 12, 12, 3072),
    "bert-large": (1024, 24, 16, 4096),
}
"""Name -> hidden size, layers, heads, FFN neurons (Devlin et al., 2019, section 3)."""
VOCABULARY, POSITIONS, TOKEN_TYPES, LABELS = 30_522, 512, 2, 2
SCALE = 0.02
"""Standard deviation of the weights, as BERT starts with."""


def shape_named(name: str) -> Shape:
    """Return one of ``SHAPES`` as a classifier of two labels.

    Raises:
        SpecError: no shape of that name.
    """
    if name not in SHAPES:
        raise SpecError(f"unknown shape {name!r}; known: {', '.join(SHAPES)}")
    hidden, layers, heads, ffn = SHAPES[name]
    return Shape(
        hidden=hidden,
        num_layers=layers,
        num_heads=heads,
        head_dim=hidden // heads,
        ffn=ffn,
        vocabulary=VOCABULARY,
        positions=POSITIONS,
        token_types=TOKEN_TYPES,
        labels=LABELS,
    )


def random_model(name: str, shape: Shape, *, seed: int = 0) -> BaseModel:
    """Return a model of ``shape`` with normally distributed weights, on the CPU in float32. It has no tokenizer."""
    generator = torch.Generator().manual_seed(seed)
    hidden = shape.hidden

    def matrix(outputs: int, inputs: int) -> Tensor:
        return torch.randn(outputs, inputs, generator=generator).mul_(SCALE)

    def norm(slot: str) -> dict[str, Tensor]:
        return {f"{slot}.weight": torch.ones(hidden), f"{slot}.bias": torch.zeros(hidden)}

    def linear(slot: str, outputs: int, inputs: int) -> dict[str, Tensor]:
        return {f"{slot}.weight": matrix(outputs, inputs), f"{slot}.bias": torch.zeros(outputs)}

    tensors = {
        "embeddings.word.weight": matrix(shape.vocabulary, hidden),
        "embeddings.position.weight": matrix(shape.positions, hidden),
        "embeddings.token_type.weight": matrix(shape.token_types, hidden),
        **norm("embeddings.norm"),
        **linear("pooler", hidden, hidden),
        **linear("classifier", shape.labels, hidden),
    }
    for layer in range(shape.num_layers):
        for slot in ("query", "key", "value", "attention_output"):
            tensors |= linear(f"layers.{layer}.{slot}", hidden, hidden)
        tensors |= linear(f"layers.{layer}.ffn_in", shape.ffn, hidden)
        tensors |= linear(f"layers.{layer}.ffn_out", hidden, shape.ffn)
        tensors |= norm(f"layers.{layer}.attention_norm") | norm(f"layers.{layer}.ffn_norm")
    return BaseModel(
        name=name,
        path=Path(name),
        shape=shape,
        activation="gelu",
        norm_eps=1e-12,
        labels=tuple(f"label {index}" for index in range(shape.labels)),
        tensors=tensors,
        weights_digest=f"random {seed}",
        tokenizer_digest="none",
    )


def even_mask(shape: Shape, sparsity: float) -> StructureMask:
    """Return a mask that cuts every layer alike, down to one head and one block of neurons at most.

    Heads are rounded to the nearest; neurons, in whole blocks as in every cut, make up for it.
    """
    heads = max(1, round((1 - sparsity) * shape.num_heads))
    layer = shape.prunable_weights // shape.num_layers
    left = (1 - sparsity) * layer - heads * shape.head_weights
    blocks = max(1, round(left / shape.neuron_weights / ROUND_TO))
    neurons = min(blocks * ROUND_TO, shape.ffn)
    return StructureMask(
        (torch.arange(shape.num_heads) < heads).repeat(shape.num_layers, 1),
        (torch.arange(shape.ffn) < neurons).repeat(shape.num_layers, 1),
    )


def random_sequences(lengths: Sequence[int], total: int, vocabulary: int, *, seed: int = 0) -> list[Encoded]:
    """Return ``total`` sequences of random token ids, their lengths those given in turn."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for index in range(total):
        length = lengths[index % len(lengths)]
        made.append(Encoded(torch.randint(vocabulary, (length,), generator=generator).tolist(), [0] * length))
    return made
