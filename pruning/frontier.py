"""The frontier: accuracy against measured cost over the ladder, on this machine."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pruning.errors import StoreError
from pruning.files import write_json
from pruning.prediction import BATCH_SEQUENCES
from pruning.slim.convert import build_slim
from pruning.slim.packed import PackedBatch
from pruning.timing import Speed, single_text_latencies
from pruning.variants import Manifest, VariantStore
from pruning.workbench import Workbench

SPEEDS = "speeds.json"
ROUNDS = 5
ROWS_PER_ROUND = 128


@torch.inference_mode()
def measure_side_by_side(
    bench: Workbench, manifests: Sequence[Manifest], progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Speed]:
    """Return the speed of each variant, all measured in turn in one run, and keep it in the store.

    In every round each variant answers the same length-sorted batches and single texts; medians over the rounds are
    kept, so that a disturbance hits all variants alike.
    """
    models = {m.variant_id: build_slim(bench.base, bench.store.load(m.variant_id)[1]) for m in manifests}
    sequences = sorted(bench.evaluation.sequences[:ROWS_PER_ROUND], key=lambda sequence: len(sequence.ids))
    batches = [
        PackedBatch.from_sequences(sequences[start : start + BATCH_SEQUENCES])
        for start in range(0, len(sequences), BATCH_SEQUENCES)
    ]
    rates: dict[str, list[float]] = {variant_id: [] for variant_id in models}
    latencies: dict[str, list[float]] = {variant_id: [] for variant_id in models}
    for done in range(ROUNDS):
        for variant_id, model in models.items():
            started = time.perf_counter()
            for batch in batches:
                model(batch)
            rates[variant_id].append(len(sequences) / (time.perf_counter() - started))
            latencies[variant_id] += single_text_latencies(model, sequences, repeats=9)
        progress(done + 1, ROUNDS)
    speeds = {
        variant_id: Speed(
            latency_p50_ms=statistics.median(latencies[variant_id]), items_per_s=statistics.median(rates[variant_id])
        )
        for variant_id in models
    }
    path = bench.root / SPEEDS
    write_json(path, _stored_speeds(path) | {variant_id: asdict(speed) for variant_id, speed in speeds.items()})
    return speeds


def frontier_rows(store: VariantStore, base_digest: str | None = None) -> list[dict[str, Any]]:
    """Return one plain row per variant in the store, least sparse first.

    Speeds are the side-by-side ones where they were measured, else those of the build; ``speedup`` and
    ``ideal_speedup`` (dense MACs / MACs) are against the dense variant judged on the same rows.
    """
    manifests = [m for m in store.list() if base_digest is None or m.base_digest == base_digest]
    stored = _stored_speeds(store.root / SPEEDS)
    speeds = {m.variant_id: Speed(**stored[m.variant_id]) if m.variant_id in stored else m.speed for m in manifests}
    denses = {m.evaluation.rows_digest: m for m in manifests if m.spec.sparsity == 0.0}
    rows = []
    for manifest in manifests:
        speed, evaluation, cost = speeds[manifest.variant_id], manifest.evaluation, manifest.cost
        row = {
            "variant": manifest.variant_id,
            "requested_sparsity": manifest.spec.sparsity,
            "achieved_sparsity": manifest.achieved_sparsity,
            "pattern": manifest.spec.as_dict()["pattern"],
            "scorer": manifest.spec.scorer,
            "recover": manifest.spec.as_dict()["recover"],
            "accuracy": evaluation.accuracy,
            "accuracy_interval": [evaluation.accuracy_low, evaluation.accuracy_high],
            "accuracy_rows": evaluation.rows,
            "agreement": evaluation.agreement,
            "parameters": cost.parameters,
            "prunable_parameters": cost.prunable_parameters,
            "macs": cost.macs,
            "macs_length": cost.macs_length,
            "bytes": cost.bytes,
            "latency_p50_ms": speed.latency_p50_ms,
            "items_per_s": speed.items_per_s,
            "speedup": None,
            "ideal_speedup": None,
            "heads": manifest.heads,
            "neurons": manifest.neurons,
            "build_seconds": manifest.build_seconds,
        }
        dense = denses.get(evaluation.rows_digest)
        if dense is not None:
            row["speedup"] = speed.items_per_s / speeds[dense.variant_id].items_per_s
            row["ideal_speedup"] = dense.cost.macs / cost.macs
        rows.append(row)
    return rows


def _stored_speeds(path: Path) -> dict[str, dict[str, float]]:
    if not path.is_file():
        return {}
    try:
        speeds: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path} is damaged ({error}); delete it and run 'sparsedial prepare' again") from None
    return speeds
