"""The engine alone, in this process: every stage from texts to the bytes of an answer, timed one after the other.

All subjects answer the same batches in turn, round by round, so that a disturbance hits all alike. Of each the best
round counts; the median over the rounds stands beside it.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
import torch

from pruning.slim.packed import PackedBatch
from pruning.tokenization import Encoded
from service.bench.subjects import Subject
from service.classification import Ranking, rank

BATCH_TEXTS = 32
ROUNDS = 5
"""After one that warms up."""
STAGES = ("tokenization", "packing", "inference", "answer")
"""Texts to ids; ids to tensors; the forward pass; logits to ranked labels in JSON."""

Batch = Callable[[], Sequence[Encoded]]
"""A batch of texts as the call that tokenizes it."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReading:
    """What one subject reached."""

    texts: int
    macs: int
    """Multiply-accumulates of all texts."""
    stage_s: dict[str, float]
    """Seconds of each stage for all texts, in the round whose engine stages were fastest."""
    median_s: float
    """Seconds of packing and inference for all texts, the median of the rounds."""

    @property
    def texts_per_s(self) -> float:
        """Texts a second of what the engine's own thread does: packing and inference."""
        return self.texts / _engine_s(self.stage_s)

    @property
    def median_texts_per_s(self) -> float:
        """The same over the median round."""
        return self.texts / self.median_s

    @property
    def macs_per_s(self) -> float:
        """Multiply-accumulates a second of the forward pass."""
        return self.macs / self.stage_s["inference"]

    @property
    def shares(self) -> dict[str, float]:
        """Share of the whole time that each stage takes."""
        total = sum(self.stage_s.values())
        return {stage: seconds / total for stage, seconds in self.stage_s.items()}


@torch.inference_mode()
def measure_engine(
    subjects: Sequence[Subject],
    batches: Sequence[Batch],
    *,
    seconds: float,
    rounds: int = ROUNDS,
    progress: Progress = lambda done, total: None,
) -> list[EngineReading]:
    """Return a reading of every subject, in order.

    As many batches are used, two at least, as the first subject answers in about ``seconds``.
    """
    batches = batches[: _batches_within(seconds, subjects[0], batches)]
    lengths = [len(sequence.ids) for batch in batches for sequence in batch()]
    passes: list[list[dict[str, float]]] = [[] for _ in subjects]
    for done in range(rounds + 1):
        for subject, kept in zip(subjects, passes, strict=True):
            kept.append(_pass(subject, batches))
        progress(done + 1, rounds + 1)
    return [
        EngineReading(
            texts=len(lengths),
            macs=subject.macs(lengths),
            stage_s=min(kept[1:], key=_engine_s),
            median_s=statistics.median(map(_engine_s, kept[1:])),
        )
        for subject, kept in zip(subjects, passes, strict=True)
    ]


def _batches_within(seconds: float, subject: Subject, batches: Sequence[Batch]) -> int:
    """Return how many batches, two at least, take about ``seconds``."""
    _pass(subject, batches[:2])
    taken = sum(_pass(subject, batches[:2]).values()) / len(batches[:2])
    return max(2, round(seconds / taken))


def _pass(subject: Subject, batches: Sequence[Batch]) -> dict[str, float]:
    """Return the seconds of each stage over all batches."""
    seconds = dict.fromkeys(STAGES, 0.0)
    labels = [str(index) for index in range(subject.shape.labels)]
    for batch in batches:
        started = time.perf_counter()
        sequences = batch()
        tokenized = time.perf_counter()
        packed = PackedBatch.from_sequences(sorted(sequences, key=lambda sequence: len(sequence.ids)))
        ready = time.perf_counter()
        logits = subject.model(packed).float().numpy()
        computed = time.perf_counter()
        orjson.dumps(rank(logits, labels, Ranking()))
        times = (started, tokenized, ready, computed, time.perf_counter())
        for stage, begin, end in zip(STAGES, times, times[1:], strict=False):
            seconds[stage] += end - begin
    return seconds


def _engine_s(stage_s: dict[str, float]) -> float:
    return stage_s["packing"] + stage_s["inference"]
