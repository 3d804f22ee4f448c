"""What an engine promises, whatever computes it, and what all engines have in common."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pruning.probes import probes
from pruning.slim.packed import TokenSequence
from pruning.variants import Manifest
from service.schedule import Lane

DEFAULT_BATCH_TOKENS = 4096


class NonFiniteLogits(RuntimeError):
    """The model's answer holds a NaN or an infinity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Milliseconds of one core that an engine took for fixed sequences, the median of a few rounds."""

    single_ms: float
    """One short sequence alone."""
    batch_ms: float
    """A batch of mixed lengths."""


class Engine(Protocol):
    """A variant ready to answer on one device.

    Warm it up first; then any number of threads may call ``predict`` at once.
    """

    @property
    def name(self) -> str:
        """What computes: ``torch`` or ``openvino``."""

    @property
    def manifest(self) -> Manifest:
        """The variant."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Label of each logit."""

    @property
    def max_length(self) -> int:
        """Longest sequence, in tokens, special ones included."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def side_by_side(self) -> bool:
        """Whether threads that call at once compute at once, each on its own cores; else one waits for the other."""

    @property
    def model(self) -> Any:
        """What holds the weights; it takes a weak reference."""

    @property
    def readings(self) -> Mapping[str, Reading] | None:
        """What the engines took side by side when one was chosen, by their names; None where there was no choice."""

    def warm_up(self) -> None:
        """Run fixed sequences of several lengths, alone and together: weights are laid out, a broken model shows.

        Raises:
            NonFiniteLogits: the model answers with a NaN or an infinity.
        """

    def rehearse(self, lane: Lane, lengths: Sequence[int]) -> None:
        """Run fixed sequences of these lengths as a batch on ``lane``, so that kernels of their shapes are there.

        Raises:
            NonFiniteLogits: the model answers with a NaN or an infinity.
        """

    def predict(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Return logits [n, C], float32 on the CPU, in the order of ``sequences``.

        Raises:
            NonFiniteLogits: a logit is not finite.
        """


@dataclass(frozen=True, slots=True)
class Live:
    """The engine that answers and the generation it answers under: read once for each batch, replaced as one."""

    generation: int
    engine: Engine


Predict = Callable[[Sequence[TokenSequence]], Tensor]
"""Sequences -> their logits, in their order."""
Fits = Callable[[int, int, int], bool]
"""(sequences, their tokens together, tokens of the longest) -> whether one forward pass may take them."""


def predict_in_chunks(
    forward: Predict,
    sequences: Sequence[TokenSequence],
    fits: Fits,
    variant_id: str,
) -> Tensor:
    """Return logits [n, C], float32 on the CPU, in the order of ``sequences``; chunks of like length run together.

    Args:
        forward: one pass over sequences sorted by length; logits in their order.
        sequences: at least one.
        fits: what a pass may take; a single sequence is never refused.
        variant_id: for the error's words.

    Raises:
        NonFiniteLogits: a logit is not finite.
    """
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index].ids))
    parts = [forward([sequences[index] for index in chunk]) for chunk in _chunks(order, sequences, fits)]
    sorted_logits = torch.cat(parts).float().cpu()
    logits = torch.empty_like(sorted_logits)
    logits[torch.tensor(order)] = sorted_logits
    if not torch.isfinite(logits).all():
        raise NonFiniteLogits(f"variant {variant_id} answered with logits that are not finite")
    return logits


def _chunks(order: Sequence[int], sequences: Sequence[TokenSequence], fits: Fits) -> Iterator[list[int]]:
    """Split ``order``, from short to long, into neighbours that fit together."""
    chunk: list[int] = []
    tokens = 0
    for index in order:
        length = len(sequences[index].ids)
        if chunk and not fits(len(chunk) + 1, tokens + length, length):
            yield chunk
            chunk, tokens = [], 0
        chunk.append(index)
        tokens += length
    yield chunk


def run_probes(predict: Predict, max_length: int, vocabulary: int) -> None:
    """Have fixed sequences answered, alone and together; raises what ``predict`` raises."""
    fixed = probes(max_length, vocabulary)
    for one in fixed:
        predict([one])
    predict(fixed)
