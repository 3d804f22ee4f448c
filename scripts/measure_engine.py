"""Measure what share of this machine's matrix rate the engine turns into answers, per level and precision.

    python scripts/measure_engine.py embedded/model --train TRAIN --eval VALIDATION --store STORE

The ceiling of a precision is the best rate of one matrix of the model's own sizes, and larger ones, in the same run.
Only multiplications of real tokens count. Texts come in batches of 32, sorted over all of them (sorted) or only within
a batch (mixed); all levels are measured in turn, round by round, and the best round of each counts.
"""

import time
from collections.abc import Sequence

import torch
from workbench_arguments import open_workbench

from pruning.ceiling import ceiling, matrix_sizes
from pruning.cost import structured_cost
from pruning.pipeline import build_variant
from pruning.prediction import BATCH_SEQUENCES
from pruning.slim.bert import SlimBert
from pruning.slim.convert import build_slim
from pruning.slim.packed import PackedBatch, TokenSequence
from pruning.slim.quantized import multiplies_integers
from pruning.spec import Precision, PruneSpec
from pruning.variants import Manifest
from pruning.workbench import Workbench

LEVELS = (0.0, 0.5, 0.6, 0.7, 0.8)
TEXTS = 800
ROUNDS = 5


def batches_of(sequences: Sequence[TokenSequence], *, mixed: bool) -> list[PackedBatch]:
    """Return the texts in batches, sorted over all or within each batch."""
    ordered = list(sequences) if mixed else sorted(sequences, key=lambda sequence: len(sequence.ids))
    return [
        PackedBatch.from_sequences(sorted(ordered[at : at + BATCH_SEQUENCES], key=lambda sequence: len(sequence.ids)))
        for at in range(0, len(ordered), BATCH_SEQUENCES)
    ]


def macs_of(bench: Workbench, manifest: Manifest, sequences: Sequence[TokenSequence]) -> int:
    """Return the multiply-accumulates of all sequences at their own lengths."""
    widths = (manifest.heads, manifest.neurons, manifest.head_dims)
    lengths = [len(sequence.ids) for sequence in sequences]
    return sum(structured_cost(bench.base.shape, *widths, length=length).macs for length in lengths)


def seconds_of(model: SlimBert, batches: Sequence[PackedBatch]) -> float:
    """Return the seconds of one pass over all batches."""
    started = time.perf_counter()
    for batch in batches:
        model(batch)
    return time.perf_counter() - started


@torch.inference_mode()
def main() -> None:
    """Print a Markdown table for each precision."""
    bench = open_workbench(__doc__)
    sequences = bench.evaluation.sequences[:TEXTS]
    orders = {"sorted": batches_of(sequences, mixed=False), "mixed": batches_of(sequences, mixed=True)}
    precisions = [one for one in Precision if one is not Precision.INT8 or multiplies_integers()]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {len(sequences)} texts")
    for precision in precisions:
        manifests = [build_variant(bench, PruneSpec(sparsity=level, precision=precision)) for level in LEVELS]
        models = [build_slim(bench.base, bench.store.load(manifest.variant_id)[1]) for manifest in manifests]
        best = {(order, index): float("inf") for order in orders for index in range(len(models))}
        for _ in range(ROUNDS + 1):  # the first one warms up, and is never the best
            for order, batches in orders.items():
                for index, model in enumerate(models):
                    best[order, index] = min(best[order, index], seconds_of(model, batches))
        top = ceiling(precision, matrix_sizes(bench.base.shape))
        print(f"\n{precision}: matrices at best {2e-9 * top:.0f} GFLOP/s\n")
        print("| sparsity | sorted, texts/s | of ceiling | mixed, texts/s | of ceiling | speed-up (ideal), sorted |")
        print("| --- | --- | --- | --- | --- | --- |")
        dense = macs_of(bench, manifests[0], sequences)
        for index, manifest in enumerate(manifests):
            macs = macs_of(bench, manifest, sequences)
            cells = [f"{manifest.spec.sparsity:g}"]
            for order in orders:
                seconds = best[order, index]
                cells += [f"{len(sequences) / seconds:.0f}", f"{macs / seconds / top:.0%}"]
            cells.append(f"{best['sorted', 0] / best['sorted', index]:.2f} ({dense / macs:.2f})")
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
