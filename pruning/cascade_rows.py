"""Cascades as points of the frontier: what each is worth, and what a text costs on average."""

from collections.abc import Mapping, Sequence
from typing import Any

from pruning.cascade import Cascade
from pruning.cascades import read_cascades
from pruning.pareto import dominators
from pruning.speeds import SPEEDS, Run, newest_run, read_runs
from pruning.variants import VariantStore

Row = Mapping[str, Any]


def cascade_rows(store: VariantStore, levels: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one plain row per cascade of these frontier rows, the sparsest level last.

    A text costs what the level costs, and of the share that goes on what the dense model costs too: ``macs`` is that
    mean. ``items_per_s`` is expected, not measured: ``1 / (1 / level's + share / dense one's)``, from the newest run
    that timed both, else None. ``dominated_by`` names the level or cascade that is at least as good by its metric and
    as fast.

    Raises:
        StoreError: stored cascades or speeds are damaged.
    """
    by_variant = {row["variant"]: row for row in levels}
    runs = read_runs(store.root / SPEEDS)
    known = read_cascades(store.root, list(by_variant))
    rows = [
        _row(cascade, by_variant[cascade.variant_id], by_variant[cascade.dense_id], runs)
        for level in levels
        for cascade in known.get(level["variant"], ())
    ]
    timed = [row | {"variant": row["cascade"]} for row in rows if row["items_per_s"] is not None]
    dominated_by = dominators([*levels, *timed])
    return [row | {"dominated_by": dominated_by.get(row["cascade"])} for row in rows]


def _row(cascade: Cascade, level: Row, dense: Row, runs: Sequence[Run]) -> dict[str, Any]:
    evaluation, metric, share = cascade.evaluation, cascade.evaluation.metric, cascade.escalated
    run = newest_run(runs, {cascade.variant_id, cascade.dense_id})
    rate = speedup = None
    if run is not None:
        first, behind = (run.speeds[one].items_per_s for one in (cascade.variant_id, cascade.dense_id))
        rate = 1.0 / (1.0 / first + share / behind)
        speedup = rate / behind
    macs = level["macs"] + share * dense["macs"]
    return {
        "cascade": cascade.cascade_id,
        "level": cascade.variant_id,
        "dense": cascade.dense_id,
        **{name: level[name] for name in ("requested_sparsity", "achieved_sparsity", "precision", "pattern", "scorer")},
        "agreement_target": cascade.target,
        "threshold": cascade.threshold,
        "calibration_rows": cascade.calibration_rows,
        "calibration_apart": cascade.apart,
        "calibration_agreement": cascade.calibration_agreement,
        "escalated": share,
        "metric": metric.name,
        "metric_value": metric.value,
        "metric_interval": [metric.low, metric.high],
        "accuracy": metric.value if metric.name == "accuracy" else None,
        "accuracy_interval": [metric.low, metric.high] if metric.name == "accuracy" else None,
        "accuracy_rows": evaluation.rows,
        "rows_digest": evaluation.rows_digest,
        "agreement": evaluation.agreement,
        "macs": macs,
        "macs_length": level["macs_length"],
        "items_per_s": rate,
        "speedup": speedup,
        "ideal_speedup": dense["macs"] / macs,
        "speeds_run": None if run is None else run.id,
    }
