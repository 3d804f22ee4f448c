"""How far a variant's answers are the dense model's, text by text. Arithmetic alone.

Letters: B texts, C labels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.tally import Compared

NAMED_LABELS = 20
"""Labels that are told apart; answers with a later one count as ``OTHER``."""
OTHER = "other"
SHORTEST = 8
"""Tokens of the first bucket of lengths; each further one holds twice as many."""


def compared(
    logits_BC: NDArray[Any], dense_BC: NDArray[Any], lengths: Sequence[int], labels: Sequence[str]
) -> list[Compared]:
    """Return the slices that texts make up: by the variant's label and by length in tokens.

    Args:
        logits_BC: of the variant.
        dense_BC: of the dense model, for the same texts.
        lengths: tokens of each text.
        labels: name of each logit.
    """
    mine_B, theirs_B = logits_BC.argmax(1).tolist(), dense_BC.argmax(1).tolist()
    slices: dict[tuple[str, str], Compared] = {}
    for mine, theirs, kl, length in zip(mine_B, theirs_B, _kl(dense_BC, logits_BC).tolist(), lengths, strict=True):
        name = (labels[mine] if mine < NAMED_LABELS else OTHER, length_bucket(length))
        known = slices.get(name) or Compared(label=name[0], length=name[1], texts=0, agreed=0, kl_sum=0.0)
        slices[name] = Compared(
            label=known.label,
            length=known.length,
            texts=known.texts + 1,
            agreed=known.agreed + (mine == theirs),
            kl_sum=known.kl_sum + kl,
        )
    return list(slices.values())


def length_bucket(tokens: int) -> str:
    """Return the bucket of a length: ``1-8``, ``9-16``, ``17-32`` and so on."""
    low, high = 1, SHORTEST
    while tokens > high:
        low, high = high + 1, 2 * high
    return f"{low}-{high}"


def _kl(dense_BC: NDArray[Any], logits_BC: NDArray[Any]) -> NDArray[np.float64]:
    """Return KL(dense || variant) of the softmaxes of each text, in nats."""
    dense, other = _log_softmax(dense_BC), _log_softmax(logits_BC)
    divergence: NDArray[np.float64] = (np.exp(dense) * (dense - other)).sum(1)
    return np.maximum(divergence, 0.0)


def _log_softmax(logits_BC: NDArray[Any]) -> NDArray[np.float64]:
    shifted = logits_BC.astype(np.float64)
    shifted = shifted - shifted.max(1, keepdims=True)
    scores: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return scores
