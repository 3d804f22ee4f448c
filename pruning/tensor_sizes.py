"""How large every tensor of a model is, by slot name.

Letters: D hidden, E embedding width, F FFN neurons.
"""

from pruning.cost import Shape

PRUNABLE_SLOTS = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")
"""Linear layers of an encoder layer whose weights may go."""


def tensor_sizes(shape: Shape, first_position: int) -> dict[str, tuple[int, ...]]:
    """Return the size of every tensor of a model by slot name, of positions all that are stored."""
    D, F, E = shape.hidden, shape.ffn, shape.embedding_width
    sizes: dict[str, tuple[int, ...]] = {
        "embeddings.word.weight": (shape.vocabulary, E),
        "embeddings.position.weight": (first_position + shape.positions, E),
    }
    if shape.token_types:
        sizes["embeddings.token_type.weight"] = (shape.token_types, E)
    for part in ("weight", "bias"):
        sizes[f"embeddings.norm.{part}"] = (E,)
    matrices = {"classifier": (shape.labels, D)}
    if shape.embedding is not None:
        matrices["embeddings.project"] = (D, E)
    if shape.head.pooled:
        matrices["pooler"] = (D, D)
    for layer in range(shape.num_layers):
        for slot in PRUNABLE_SLOTS:
            matrices[f"layers.{layer}.{slot}"] = {"ffn_in": (F, D), "ffn_out": (D, F)}.get(slot, (D, D))
        for norm in ("attention_norm", "ffn_norm"):
            sizes |= {f"layers.{layer}.{norm}.{part}": (D,) for part in ("weight", "bias")}
    for slot, (outputs, inputs) in matrices.items():
        sizes |= {f"{slot}.weight": (outputs, inputs), f"{slot}.bias": (outputs,)}
    return sizes
