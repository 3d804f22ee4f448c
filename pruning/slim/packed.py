"""A batch of sequences laid end to end, without padding.

Letters: B sequences, T tokens of all sequences together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from pruning.slim.groups import Group, group_lengths


class TokenSequence(Protocol):
    """One encoded text."""

    @property
    def ids(self) -> Sequence[int]:
        """Token ids, special ones included."""

    @property
    def type_ids(self) -> Sequence[int]:
        """Token types: 0 for the first text, 1 for the second of a pair."""


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Token tensors of B sequences; fastest when neighbours are of like length (sort by length first)."""

    ids_T: Tensor
    type_ids_T: Tensor
    positions_T: Tensor
    first_B: Tensor
    """Index of each sequence's first token: what a classification head reads."""
    sequence_T: Tensor
    """Sequence that each token belongs to."""
    groups: tuple[Group, ...]
    """Neighbours that attention handles together."""

    @classmethod
    def from_sequences(cls, sequences: Sequence[TokenSequence], device: torch.device | str = "cpu") -> Self:
        """Lay the sequences end to end, in their order.

        Raises:
            ValueError: no sequence, or an empty one.
        """
        lengths = [len(sequence.ids) for sequence in sequences]
        if not lengths or min(lengths) == 0:
            raise ValueError("a packed batch needs at least one sequence, and at least one token in each")
        lengths_B = np.array(lengths)
        stop_B = np.cumsum(lengths_B)
        first_B = stop_B - lengths_B
        sequence_T = np.repeat(np.arange(len(lengths)), lengths_B)
        positions_T = np.arange(stop_B[-1]) - first_B[sequence_T]
        return cls(
            ids_T=_on(device, np.array([token for sequence in sequences for token in sequence.ids])),
            type_ids_T=_on(device, np.array([kind for sequence in sequences for kind in sequence.type_ids])),
            positions_T=_on(device, positions_T),
            first_B=_on(device, first_B),
            sequence_T=_on(device, sequence_T),
            groups=tuple(group.to(device) for group in group_lengths(lengths)),
        )

    @property
    def num_sequences(self) -> int:
        """B."""
        return self.first_B.shape[0]

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.ids_T.shape[0]


def _on(device: torch.device | str, values: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
    return torch.from_numpy(values).to(device)
