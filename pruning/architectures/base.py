"""What the adapter must know of an architecture: where a checkpoint keeps every slot, and what it calls its sizes.

Slots are our names of a model's parts, the same for every architecture:
``embeddings.word``, ``embeddings.position``, ``embeddings.token_type``, ``embeddings.norm``, ``embeddings.project``;
of every layer ``query``, ``key``, ``value``, ``attention_output``, ``attention_norm``, ``ffn_in``, ``ffn_out``,
``ffn_norm``; ``pooler`` and ``classifier``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pruning.heads import Head

TOKEN_HEADS: Mapping[Head, Mapping[str, str]] = {
    Head.TAGS: {"classifier": "classifier"},
    Head.SPAN: {"classifier": "qa_outputs"},
}
"""Slots of the heads that read every token: the same in every architecture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One architecture's names. Everything is relative to ``prefix``, but the parts of a head."""

    name: str
    """As its authors write it."""
    prefix: str
    """What the names of the encoder's tensors begin with."""
    embeddings: Mapping[str, str]
    """Slot -> module."""
    layer: str
    """Module of a layer, with ``{}`` for its number."""
    layer_slots: Mapping[str, str]
    """Slot -> module within a layer: attention first, then the FFN."""
    pooled_head: Mapping[str, str]
    """Slots of a head that reads the first token -> module."""
    head_activation: str
    """What stands between ``pooler`` and ``classifier``."""
    sizes: Mapping[str, str]
    """Field of ``Shape`` -> setting of ``config.json``."""
    activation: str = "hidden_act"
    """Setting that names the FFN's activation."""
    norm_eps: str | None = "layer_norm_eps"
    """Setting that is added to the variance of a norm; None where it is fixed."""
    positions_follow_padding: bool = False
    """Whether the first token has the position after that of the padding token, and not 0."""

    def head_modules(self, head: Head) -> Mapping[str, str]:
        """Return slot -> module of a head."""
        return self.pooled_head if head.pooled else TOKEN_HEADS[head]

    def modules(self, head: Head, num_layers: int) -> Iterator[tuple[str, str]]:
        """Yield (slot, module) of every part of a model."""
        for slot, module in self.embeddings.items():
            yield slot, f"{self.prefix}.{module}"
        for index in range(num_layers):
            for slot, module in self.layer_slots.items():
                yield f"layers.{index}.{slot}", f"{self.prefix}.{self.layer.format(index)}.{module}"
        yield from self.head_modules(head).items()

    def unread(self, name: str) -> bool:
        """Tell whether an encoder's tensor is one that some checkpoints hold and no answer depends on.

        These are constants that older versions of the library wrote, and the pooler below a head that reads past it.
        """
        inner = name.removeprefix(f"{self.prefix}.")
        return inner in ("embeddings.position_ids", "embeddings.token_type_ids") or inner.startswith("pooler.")
