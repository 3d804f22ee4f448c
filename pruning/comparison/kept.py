"""What a mask keeps of every part of the encoder, small enough to be stored, and how far two masks overlap.

A part is the heads or the neurons of a layer, or the QK or VO units inside its heads, or, of masks of single weights,
one weight matrix.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pruning.cost import Shape
from pruning.masks.structures import StructureMask
from pruning.masks.weights import WeightMask

SAMPLE = 4096
"""Elements of a part that are looked at, if it has more: of heads and neurons all, of single weights a fixed draw."""


class Sublayer(StrEnum):
    """The two halves of an encoder layer."""

    ATTENTION = "attention"
    FFN = "ffn"


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What is kept of one part."""

    layer: int
    sublayer: Sublayer
    weights: int
    """Prunable weights of the whole part."""
    size: int
    """Elements of the part: heads, neurons, units or weights."""
    kept: int
    """Elements kept, of ``size``."""
    sample: Tensor
    """Which of the elements looked at are kept, bool; the same elements in every mask of this encoder."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; the sample as bits in base64."""
        bits = np.packbits(self.sample.numpy()).tobytes()
        return {
            "layer": self.layer,
            "sublayer": self.sublayer.value,
            "weights": self.weights,
            "size": self.size,
            "kept": self.kept,
            "sampled": self.sample.numel(),
            "sample": base64.b64encode(bits).decode("ascii"),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild from ``as_dict``."""
        bits = np.frombuffer(base64.b64decode(values["sample"]), dtype=np.uint8)
        return cls(
            layer=values["layer"],
            sublayer=Sublayer(values["sublayer"]),
            weights=values["weights"],
            size=values["size"],
            kept=values["kept"],
            sample=torch.from_numpy(np.unpackbits(bits, count=values["sampled"]).astype(bool)),
        )


def kept_by(mask: StructureMask | WeightMask, shape: Shape) -> tuple[Part, ...]:
    """Return what ``mask`` keeps, part by part in the order of the layers."""
    if isinstance(mask, StructureMask):
        return tuple(
            _part(layer, sublayer, kept, kept.numel() * weights_each)
            for layer in range(shape.num_layers)
            for sublayer, kept, weights_each in (
                *((Sublayer.ATTENTION, *heads) for heads in _heads_of(mask, layer, shape)),
                (Sublayer.FFN, mask.neurons_LF[layer], shape.neuron_weights),
            )
        )
    return tuple(_part(*_place(name), kept.flatten(), kept.numel()) for name, kept in mask.items())


def _heads_of(mask: StructureMask, layer: int, shape: Shape) -> list[tuple[Tensor, int]]:
    """Return (kept, weights of one) of the heads of a layer, or of the units inside them."""
    if mask.units is None:
        return [(mask.heads_LN[layer], shape.head_weights)]
    kept_N1 = mask.heads_LN[layer, :, None]
    units = (mask.units.qk_LNH[layer], mask.units.vo_LNH[layer])
    return [((kept_N1 & units_NH).flatten(), 2 * shape.hidden) for units_NH in units]


def jaccard(ours: Sequence[Part], theirs: Sequence[Part]) -> float:
    """Return the Jaccard index of what two masks keep: weights kept by both, of those kept by either.

    A head or neuron counts with the weights that it owns, so that structures and single weights share one scale. Of
    parts larger than ``SAMPLE`` it is an estimate from the sample. 1 where neither mask keeps anything.

    Raises:
        ValueError: the parts are not those of one encoder and one kind of mask.
    """
    both = either = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        if (mine.layer, mine.sublayer, mine.sample.shape) != (other.layer, other.sublayer, other.sample.shape):
            raise ValueError(f"parts of different encoders: {mine.as_dict()}, {other.as_dict()}")
        weights_each = mine.weights / mine.sample.numel()
        both += weights_each * int((mine.sample & other.sample).sum())
        either += weights_each * int((mine.sample | other.sample).sum())
    return both / either if either else 1.0


def of_layer(parts: Sequence[Part], layer: int) -> list[Part]:
    """Return the parts of one layer."""
    return [part for part in parts if part.layer == layer]


def kept_share(parts: Sequence[Part], layer: int, sublayer: Sublayer) -> float:
    """Return the share of a sublayer's prunable weights that is kept."""
    mine = [part for part in of_layer(parts, layer) if part.sublayer is sublayer]
    return sum(part.weights * part.kept / part.size for part in mine) / sum(part.weights for part in mine)


def _part(layer: int, sublayer: Sublayer, kept: Tensor, weights: int) -> Part:
    size = kept.numel()
    sample = kept if size <= SAMPLE else kept[_drawn(size)]
    return Part(layer, sublayer, weights, size, int(kept.sum()), sample)


def _drawn(size: int) -> Tensor:
    """Return which elements of a part of ``size`` are looked at: drawn with replacement, always the same."""
    return torch.randint(size, (SAMPLE,), generator=torch.Generator().manual_seed(size))


def _place(name: str) -> tuple[int, Sublayer]:
    """Return (layer, sublayer) of ``layers.<layer>.<slot>.weight``."""
    _, layer, slot, _ = name.split(".")
    return int(layer), Sublayer.FFN if slot.startswith("ffn") else Sublayer.ATTENTION
