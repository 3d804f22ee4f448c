"""Measure batches on one team of all cores against batches side by side, each on one core.

    python scripts/measure_lanes.py [MODEL]

The embedded evaluation texts, in batches of each size, through the dense model in float32 and bfloat16: by one thread
with all cores (wide), and by one thread for each core (narrow), all at once. Wide and narrow take turns, round by
round, and the best round of each counts, for whatever else runs on the machine makes rounds slower and never faster.
*One batch* is how long a batch takes, which is what a request waits; *shared* is a queue of as many texts, given to
the narrow lanes in equal parts, against the same queue run wide: above 1, sharing it out is sooner done.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `sparsedial serve` has them, before torch is imported
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import argparse
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from pruning.encoder import load_base_model
from pruning.slim.bert import SlimBert
from pruning.slim.convert import DTYPES, build_slim, dense_mask, slim_layers
from pruning.slim.packed import PackedBatch, TokenSequence
from pruning.spec import Precision
from pruning.tasks.labels import encode_rows, read_rows
from pruning.tokenization import TextTokenizer
from service.compute_threads import compute_alone, compute_on

EMBEDDED = Path(__file__).resolve().parent.parent / "embedded"
ROWS = EMBEDDED / "rows" / "evaluation.jsonl"
SIZES = (1, 2, 4, 8, 16, 32, 64)
ROUNDS = 7
TEXTS = 192
"""Texts of one round for each thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One round of one size."""

    texts_per_s: float
    batch_s: float
    """Median seconds of one batch."""


def batches_of(sequences: Sequence[TokenSequence], size: int) -> list[PackedBatch]:
    """Return ``TEXTS`` texts in batches of ``size``, each sorted by length as the engine does."""
    return [
        PackedBatch.from_sequences(sorted(sequences[at : at + size], key=lambda sequence: len(sequence.ids)))
        for at in range(0, TEXTS, size)
    ]


@torch.inference_mode()
def times_of(model: SlimBert, batches: Sequence[PackedBatch]) -> list[float]:
    """Return the seconds of each batch, one after the other in the calling thread."""
    seconds = []
    for batch in batches:
        started = time.perf_counter()
        model(batch)
        seconds.append(time.perf_counter() - started)
    return seconds


def reading(executor: ThreadPoolExecutor, threads: int, model: SlimBert, batches: Sequence[PackedBatch]) -> Reading:
    """Return what ``threads`` threads do at once, each with all the batches."""
    started = time.perf_counter()
    runs = [executor.submit(times_of, model, batches) for _ in range(threads)]
    seconds = [one for run in runs for one in run.result()]
    return Reading(texts_per_s=threads * TEXTS / (time.perf_counter() - started), batch_s=statistics.median(seconds))


def main() -> None:
    """Print a Markdown table for each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=EMBEDDED / "model")
    model_dir = parser.parse_args().model
    cores = torch.get_num_threads()
    compute_alone()
    base = load_base_model(model_dir)
    rows = encode_rows(read_rows(ROWS, base.labels), TextTokenizer.load(model_dir), base.max_length)
    layers = slim_layers(base, dense_mask(base.shape))
    wide = ThreadPoolExecutor(1, initializer=compute_on, initargs=(cores,))
    narrow = ThreadPoolExecutor(cores, initializer=compute_alone)
    print(f"{cores} cores, torch {torch.__version__}, {model_dir.name}, best of {ROUNDS} rounds")
    for precision in (Precision.FLOAT32, Precision.BFLOAT16):
        model = build_slim(base, layers).to(DTYPES[precision])
        best: dict[tuple[str, int], Reading] = {}
        for _ in range(ROUNDS + 1):  # the first warms up, and is never the best
            for size in SIZES:
                batches = batches_of(rows.sequences, size)
                for name, executor, threads in (("wide", wide, 1), ("narrow", narrow, cores)):
                    seen = reading(executor, threads, model, batches)
                    best[name, size] = max(seen, best.get((name, size), seen), key=lambda one: one.texts_per_s)
        print(f"\n{precision}\n")
        print("| texts in a batch | wide, texts/s | narrow | narrow / wide | one batch wide, ms | narrow | shared |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for size in SIZES:
            one, other = best["wide", size], best["narrow", size]
            shared = best.get(("narrow", size // cores))
            print(
                f"| {size} | {one.texts_per_s:.0f} | {other.texts_per_s:.0f} "
                f"| {other.texts_per_s / one.texts_per_s:.2f} | {1e3 * one.batch_s:.1f} | {1e3 * other.batch_s:.1f} "
                f"| {'-' if shared is None else f'{one.batch_s / shared.batch_s:.2f}'} |"
            )
    wide.shutdown()
    narrow.shutdown()


if __name__ == "__main__":
    main()
