"""A batch of sequences laid end to end, without padding.

Letters: B sequences, T tokens of all sequences together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from pruning.slim.attention import Grouped, Heads
from pruning.slim.groups import group_lengths
from pruning.slim.spans import Spans, computes_spans

Integers = np.ndarray[tuple[int], np.dtype[np.int64]]


class TokenSequence(Protocol):
    """One encoded text."""

    @property
    def ids(self) -> Sequence[int]:
        """Token ids, special ones included."""

    @property
    def type_ids(self) -> Sequence[int]:
        """Token types: 0 for the first text, 1 for the second of a pair."""


class Layout(Protocol):
    """Where the sequences of a batch lie, for attention, which alone looks across tokens."""

    def context(self, query_RNH: Tensor, key_value_TW: Tensor, heads: Heads, *, first_only: bool) -> Tensor:
        """Return what each query row reads within its own sequence, heads side by side: [R, N * V].

        Args:
            query_RNH: queries of all tokens, or of the first of each sequence; rows after them are of no sequence, and
                what they get means nothing.
            key_value_TW: keys and values of all tokens, side by side: W = N * H + N * V; likewise.
            heads: N heads of H dimensions for queries and keys, V for values.
            first_only: whether only the first token of each sequence asks.
        """


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Token tensors of B sequences; on a CPU fastest when neighbours are of like length (sort by length first)."""

    ids_T: Tensor
    type_ids_T: Tensor
    positions_T: Tensor
    first_B: Tensor
    """Index of each sequence's first token: what a classification head reads."""
    layout: Layout

    @classmethod
    def from_sequences(cls, sequences: Sequence[TokenSequence], device: torch.device | str = "cpu") -> Self:
        """Lay the sequences end to end, in their order.

        Raises:
            ValueError: no sequence, or an empty one.
        """
        lengths = [len(sequence.ids) for sequence in sequences]
        if not lengths or min(lengths) == 0:
            raise ValueError("a packed batch needs at least one sequence, and at least one token in each")
        offsets_B1 = np.cumsum([0, *lengths])
        layout: Layout
        if computes_spans(torch.device(device)):
            layout = Spans(_on(device, offsets_B1).int(), max(lengths))
        else:
            layout = Grouped(tuple(group.to(device) for group in group_lengths(lengths)))
        return cls(
            ids_T=_on(device, np.array([token for sequence in sequences for token in sequence.ids])),
            type_ids_T=_on(device, np.array([kind for sequence in sequences for kind in sequence.type_ids])),
            positions_T=_on(device, positions_of(lengths)),
            first_B=_on(device, offsets_B1[:-1]),
            layout=layout,
        )

    @property
    def num_sequences(self) -> int:
        """B."""
        return self.first_B.shape[0]

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.ids_T.shape[0]

    @property
    def sequence_T(self) -> Tensor:
        """Sequence that each token belongs to."""
        return (
            torch.searchsorted(self.first_B, torch.arange(self.num_tokens, device=self.first_B.device), right=True) - 1
        )


def positions_of(lengths: Sequence[int]) -> Integers:
    """Return the position of every token within its sequence, [T]."""
    lengths_B = np.array(lengths)
    first_B = np.cumsum(lengths_B) - lengths_B
    positions_T: Integers = np.arange(lengths_B.sum()) - np.repeat(first_B, lengths_B)
    return positions_T


def _on(device: torch.device | str, values: Integers) -> Tensor:
    return torch.from_numpy(values).to(device)
