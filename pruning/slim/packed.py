"""A batch of sequences laid end to end, without padding.

Letters: B sequences, T tokens of all sequences together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor


class TokenSequence(Protocol):
    """One encoded text."""

    @property
    def ids(self) -> Sequence[int]:
        """Token ids, special ones included."""

    @property
    def type_ids(self) -> Sequence[int]:
        """Token types: 0 for the first text, 1 for the second of a pair."""


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring sequences of one length: attention handles them in one call."""

    start: int
    """First token of the run."""
    count: int
    """Sequences in the run."""
    length: int
    """Tokens of each."""

    @property
    def stop(self) -> int:
        """One past the run's last token."""
        return self.start + self.count * self.length


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Token tensors of B sequences; fastest when neighbours are of equal length (sort by length first)."""

    ids_T: Tensor
    type_ids_T: Tensor
    positions_T: Tensor
    first_B: Tensor
    """Index of each sequence's first token: what a classification head reads."""
    sequence_T: Tensor
    """Sequence that each token belongs to."""
    runs: tuple[Run, ...]

    @classmethod
    def from_sequences(cls, sequences: Sequence[TokenSequence], device: torch.device | str = "cpu") -> Self:
        """Lay the sequences end to end, in their order.

        Raises:
            ValueError: no sequence, or an empty one.
        """
        lengths = [len(sequence.ids) for sequence in sequences]
        if not lengths or min(lengths) == 0:
            raise ValueError("a packed batch needs at least one sequence, and at least one token in each")
        runs: list[Run] = []
        start = 0
        for length in lengths:
            if runs and runs[-1].length == length:
                runs[-1] = Run(runs[-1].start, runs[-1].count + 1, length)
            else:
                runs.append(Run(start, 1, length))
            start += length
        lengths_B = torch.tensor(lengths)
        first_B = torch.cumsum(lengths_B, 0) - lengths_B
        sequence_T = torch.repeat_interleave(torch.arange(len(lengths)), lengths_B)
        return cls(
            ids_T=torch.tensor([token for sequence in sequences for token in sequence.ids]).to(device),
            type_ids_T=torch.tensor([kind for sequence in sequences for kind in sequence.type_ids]).to(device),
            positions_T=(torch.arange(start) - first_B[sequence_T]).to(device),
            first_B=first_B.to(device),
            sequence_T=sequence_T.to(device),
            runs=tuple(runs),
        )

    @property
    def num_sequences(self) -> int:
        """B."""
        return self.first_B.shape[0]

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.ids_T.shape[0]
