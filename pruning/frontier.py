"""The frontier: the task's metric against measured cost over the ladder, on this machine."""

import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from pruning.errors import StoreError
from pruning.files import write_json
from pruning.pareto import dominators
from pruning.prediction import BATCH_SEQUENCES
from pruning.slim.convert import build_slim
from pruning.slim.packed import PackedBatch
from pruning.spec import Pattern, Precision
from pruning.speeds import SPEEDS, Run, document_of, newest_run, read_runs
from pruning.timing import Speed, single_text_latencies
from pruning.variants import Manifest, VariantStore
from pruning.workbench import Workbench

ROUNDS = 5
ROWS_PER_ROUND = 128


@torch.inference_mode()
def measure_side_by_side(
    bench: Workbench, manifests: Sequence[Manifest], progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Speed]:
    """Return the speed of each variant, all measured in turn in one run, and keep it in the store.

    In every round each variant answers the same length-sorted batches and single texts; medians over the rounds are
    kept, so that a disturbance hits all variants alike and the first, cold round counts for little.

    Raises:
        StoreError: the speeds stored so far are damaged, or these cannot be written.
    """
    path = bench.root / SPEEDS
    read_runs(path)  # damage is told before the work, not after it
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
    try:
        write_json(path, document_of(read_runs(path), Run.now(speeds)))
    except OSError as error:
        raise StoreError(f"{path} could not be written: {error}; free space or choose a writable --store") from error
    return speeds


def unmeasured(store: VariantStore, manifests: Sequence[Manifest]) -> list[Manifest]:
    """Return those of ``manifests`` that were not measured beside the others: none, if one run measured all.

    Where no run measured all, the run that measured most of them counts, of equals the newest.

    Raises:
        StoreError: the stored speeds are damaged.
    """
    together: set[str] = set()
    for run in read_runs(store.root / SPEEDS):
        measured = {manifest.variant_id for manifest in manifests} & run.speeds.keys()
        together = max(measured, together, key=len)
    return [manifest for manifest in manifests if manifest.variant_id not in together]


def newest_speeds(store: VariantStore, variant_ids: Sequence[str]) -> Mapping[str, Speed]:
    """Return the speeds of the newest run that measured all these variants side by side.

    Raises:
        StoreError: no run did, or the stored speeds are damaged.
    """
    run = newest_run(read_runs(store.root / SPEEDS), set(variant_ids))
    if run is None:
        raise StoreError(
            f"no run timed {', '.join(variant_ids)} side by side; run 'sparsedial prepare' with all of them"
        )
    return run.speeds


def frontier_rows(
    store: VariantStore, base_digest: str | None = None, only: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """Return one plain row per variant in the store, least sparse first; with ``only``, of these variants alone.

    ``ideal_speedup`` (dense MACs / MACs) and ``speedup`` are against the dense variant of the same precision, judged on
    the same rows; ``speedup_over_float32`` is against the dense variant in float32, if the row's run measured it too.
    ``dominated_by`` names the row that makes this one not worth having, as ``pruning.pareto`` judges the returned rows.
    ``speedup`` is None unless one run measured both side by side; the newest such run gives all speeds of the row and
    ``speeds_run`` names it. Else they are those of the newest run with this variant, else those read while it was
    built (``speeds_run`` is None), which are compared with nothing.

    Raises:
        StoreError: the stored speeds are damaged.
    """
    manifests = [m for m in store.list() if base_digest is None or m.base_digest == base_digest]
    runs = read_runs(store.root / SPEEDS)
    denses = {(m.evaluation.rows_digest, m.spec.precision): m for m in manifests if m.spec.sparsity == 0.0}
    rows = []
    for manifest in manifests:
        if only is not None and manifest.variant_id not in only:
            continue
        evaluation, cost, metric = manifest.evaluation, manifest.cost, manifest.evaluation.metric
        dense = denses.get((evaluation.rows_digest, manifest.spec.precision))
        speed, run, speedup = _speed(runs, manifest, dense)
        plain = denses.get((evaluation.rows_digest, Precision.FLOAT32))
        row = {
            "variant": manifest.variant_id,
            "requested_sparsity": manifest.spec.sparsity,
            "achieved_sparsity": manifest.achieved_sparsity,
            "pattern": manifest.spec.as_dict()["pattern"],
            "scorer": manifest.spec.scorer,
            "recover": manifest.spec.as_dict()["recover"],
            "scope": manifest.spec.as_dict().get("scope"),
            "structures": manifest.spec.structures.value if manifest.spec.pattern is Pattern.STRUCTURED else None,
            "rounds": manifest.spec.rounds,
            "precision": manifest.spec.precision.value,
            "metric": metric.name,
            "metric_value": metric.value,
            "metric_interval": [metric.low, metric.high],
            "other_metrics": dict(evaluation.others),
            "accuracy": metric.value if metric.name == "accuracy" else None,
            "accuracy_interval": [metric.low, metric.high] if metric.name == "accuracy" else None,
            "accuracy_rows": evaluation.rows,
            "rows_digest": evaluation.rows_digest,
            "agreement": evaluation.agreement,
            "parameters": cost.parameters,
            "prunable_parameters": cost.prunable_parameters,
            "macs": cost.macs,
            "macs_length": cost.macs_length,
            "bytes": cost.bytes,
            "latency_p50_ms": speed.latency_p50_ms,
            "items_per_s": speed.items_per_s,
            "speed_device": speed.device,
            "speeds_run": None if run is None else run.id,
            "speedup": speedup,
            "speedup_over_float32": _ratio(run, manifest, plain),
            "ideal_speedup": None if dense is None else dense.cost.macs / cost.macs,
            "heads": manifest.heads,
            "neurons": manifest.neurons,
            "head_dims": manifest.head_dims,
            "build_seconds": manifest.build_seconds,
        }
        rows.append(row)
    dominated_by = dominators(rows)
    return [row | {"dominated_by": dominated_by[row["variant"]]} for row in rows]


def _ratio(run: Run | None, manifest: Manifest, other: Manifest | None) -> float | None:
    """Return the variant's rate over another's in one run; None where that did not measure both."""
    if run is None or other is None or other.variant_id not in run.speeds:
        return None
    return run.speeds[manifest.variant_id].items_per_s / run.speeds[other.variant_id].items_per_s


def _speed(runs: Sequence[Run], manifest: Manifest, dense: Manifest | None) -> tuple[Speed, Run | None, float | None]:
    """Return (speed, run that measured it, speed-up over ``dense`` in that very run)."""
    mine = manifest.variant_id
    if dense is not None:
        both = newest_run(runs, {mine, dense.variant_id})
        if both is not None:
            speed = both.speeds[mine]
            return speed, both, speed.items_per_s / both.speeds[dense.variant_id].items_per_s
    alone = newest_run(runs, {mine})
    return manifest.speed if alone is None else alone.speeds[mine], alone, None
