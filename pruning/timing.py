"""How fast a model is on this machine, in this process, with the threads it has."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pruning.prediction import BATCH_SEQUENCES
from pruning.slim.bert import SlimBert
from pruning.slim.packed import PackedBatch, TokenSequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Measured on this machine."""

    latency_p50_ms: float
    """Median milliseconds of one forward pass of one text of median length."""
    items_per_s: float
    """Texts a second in length-sorted batches."""
    device: str = "cpu"
    """Where both were read. Builds and side-by-side runs compute on the CPU, also where GPUs serve."""


@torch.inference_mode()
def single_text_latencies(
    model: SlimBert, sequences: Sequence[TokenSequence], *, repeats: int, device: torch.device | str = "cpu"
) -> list[float]:
    """Return milliseconds of ``repeats`` forward passes of the text of median length, after three to warm up."""
    middle = sorted(sequences, key=lambda sequence: len(sequence.ids))[len(sequences) // 2]
    batch = PackedBatch.from_sequences([middle], device)
    readings = []
    for _ in range(repeats + 3):
        started = time.perf_counter()
        model(batch).cpu()
        readings.append(1e3 * (time.perf_counter() - started))
    return readings[3:]


def median_latency(
    model: SlimBert, sequences: Sequence[TokenSequence], *, repeats: int = 11, device: torch.device | str = "cpu"
) -> float:
    """Return the median of ``single_text_latencies``, in milliseconds."""
    return statistics.median(single_text_latencies(model, sequences, repeats=repeats, device=device))


@torch.inference_mode()
def items_per_second(
    model: SlimBert, sequences: Sequence[TokenSequence], *, device: torch.device | str = "cpu"
) -> float:
    """Return texts a second in one forward pass of a batch of neighbours in length, about the median.

    A quick reading for one build, cold: warming up would double what it takes, and a build is on the way to a new
    level's first answer. It is compared with nothing. ``pruning.frontier`` compares levels, side by side over many
    rounds.
    """
    batch = median_batch(sequences, device)
    started = time.perf_counter()
    model(batch).cpu()
    return batch.num_sequences / (time.perf_counter() - started)


def median_batch(sequences: Sequence[TokenSequence], device: torch.device | str = "cpu") -> PackedBatch:
    """Return a batch of neighbours in length, about the median."""
    ordered = sorted(sequences, key=lambda sequence: len(sequence.ids))
    start = max(0, (len(ordered) - BATCH_SEQUENCES) // 2)
    return PackedBatch.from_sequences(ordered[start : start + BATCH_SEQUENCES], device)
