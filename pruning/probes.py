"""Fixed sequences that a variant answers when it is built, so that whoever loads it can tell that it is the same."""

from collections.abc import Sequence

from pruning.tokenization import Encoded

PROBE_LENGTHS = (4, 16, 128)
"""Tokens of each."""


def probe(length: int, vocabulary: int) -> Encoded:
    """Return a fixed sequence of token ids spread over the vocabulary."""
    return Encoded([(7919 * position) % vocabulary for position in range(length)], [0] * length)


def probes(max_length: int, vocabulary: int) -> Sequence[Encoded]:
    """Return the fixed sequences, none longer than ``max_length``."""
    return [probe(min(length, max_length), vocabulary) for length in PROBE_LENGTHS]
