"""Cascades of a ladder on disk: their thresholds calibrated and judged once, a small JSON document for each level.

<root>/cascades/<variant id>-<dense id>.<version>.json   {"cascades": [...], "sha256"}
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruning.cascade import AGREEMENTS, Cascade, lowest_threshold, margins, unsure
from pruning.checked_json import read_checked_json, with_checksum
from pruning.data import LabelledSet
from pruning.errors import StoreError
from pruning.evaluation import Evaluation, evaluate
from pruning.files import digest_of, write_json
from pruning.heads import Head
from pruning.prediction import predict_logits
from pruning.slim.convert import build_slim
from pruning.slim.packed import TokenSequence
from pruning.spec import Precision
from pruning.variants import Manifest
from pruning.workbench import Workbench

CASCADES_VERSION = 1
REMEDY = "delete it and run 'sparsedial prepare' again"

Pair = tuple[str, str]
"""(variant id of a level, variant id of the dense model behind it)."""


def _pairs(manifests: Sequence[Manifest]) -> list[tuple[Manifest, Manifest]]:
    """Return (level, dense) of every level that a cascade may begin with: those that multiply less than the dense one.

    The dense model is the first of ``manifests`` that is, so that it is in the usual precision.
    """
    dense = next((one for one in manifests if one.spec.sparsity == 0.0), None)
    if dense is None:
        return []
    return [(one, dense) for one in manifests if one.spec.sparsity > 0.0 and one.cost.macs < dense.cost.macs]


def missing_cascades(bench: Workbench, manifests: Sequence[Manifest]) -> list[tuple[Manifest, Manifest]]:
    """Return the pairs of these levels whose cascades, by the workbench's rows, are not in the store yet.

    Raises:
        StoreError: a document is damaged.
    """
    if bench.evaluation.head is not Head.LABEL or len(bench.base.labels) < 2:
        return []
    digest = _rows(bench).digest

    def is_there(level: Manifest, dense: Manifest) -> bool:
        path = _path(bench.root, (level.variant_id, dense.variant_id))
        return path.is_file() and all(one.calibration_digest == digest for one in _read(path))

    return [pair for pair in _pairs(manifests) if not is_there(*pair)]


def calibrate_cascades(
    bench: Workbench, manifests: Sequence[Manifest], progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Calibrate and judge the cascades of levels whose ones are not in the store, and keep them there.

    Each level, and the dense model once, answers all evaluation rows, and the training rows that took no part in the
    cuts, or where hardly any are left those that did.

    Raises:
        StoreError: a variant is damaged, or the cascades cannot be written.
    """
    pairs = missing_cascades(bench, manifests)
    if not pairs:
        return
    dense = pairs[0][1]
    calibration = _rows(bench).sequences
    behind = _logits(bench, dense, calibration)
    exact = dense.spec.precision is Precision.FLOAT32
    judged = bench.reference() if exact else _logits(bench, dense, bench.evaluation.sequences)
    for done, (level, _) in enumerate(pairs):
        progress(done, len(pairs))
        first = _logits(bench, level, calibration), _logits(bench, level, bench.evaluation.sequences)
        cascades = [_calibrated(bench, level, dense, first, (behind, judged), target) for target in AGREEMENTS]
        _write(bench.root, (level.variant_id, dense.variant_id), cascades)
    progress(len(pairs), len(pairs))


def read_cascades(root: Path, variant_ids: Collection[str] | None = None) -> dict[str, tuple[Cascade, ...]]:
    """Return by level the cascades whose level and dense model are both among these variants; by default all.

    Raises:
        StoreError: a document is damaged.
    """
    found: dict[str, tuple[Cascade, ...]] = {}
    for path in sorted((root / "cascades").glob(f"*.{CASCADES_VERSION}.json")):
        level, _, dense = path.name.partition(".")[0].partition("-")
        if variant_ids is None or {level, dense} <= set(variant_ids):
            found[level] = found.get(level, ()) + _read(path)
    return found


def _calibrated(
    bench: Workbench,
    level: Manifest,
    dense: Manifest,
    first: tuple[Tensor, Tensor],
    behind: tuple[Tensor, Tensor],
    target: float,
) -> Cascade:
    """Return one cascade from the logits of level and dense model on (calibration rows, evaluation rows)."""
    logits_NC, dense_NC = first[0].numpy(), behind[0].numpy()
    agrees_N = logits_NC.argmax(1) == dense_NC.argmax(1)
    threshold = lowest_threshold(margins(logits_NC), agrees_N, target)
    kept_agrees_N = agrees_N | unsure(logits_NC, threshold)
    escalated_N = torch.from_numpy(unsure(first[1].numpy(), threshold))
    outputs = torch.where(escalated_N[:, None], behind[1], first[1])
    identity = {
        "version": CASCADES_VERSION,
        "variant": level.variant_id,
        "dense": dense.variant_id,
        "rows": _rows(bench).digest,
        "target": target,
    }
    return Cascade(
        cascade_id=digest_of(identity)[:16],
        variant_id=level.variant_id,
        dense_id=dense.variant_id,
        target=target,
        threshold=threshold,
        calibration_agreement=float(np.mean(kept_agrees_N)),
        calibration_rows=len(agrees_N),
        calibration_digest=_rows(bench).digest,
        apart=bench.apart is not None,
        escalated=float(escalated_N.float().mean()),
        evaluation=evaluate(outputs, bench.reference(), bench.evaluation),
    )


def _rows(bench: Workbench) -> LabelledSet:
    return bench.train if bench.apart is None else bench.apart


def _logits(bench: Workbench, manifest: Manifest, sequences: Sequence[TokenSequence]) -> Tensor:
    return predict_logits(build_slim(bench.base, bench.store.load(manifest.variant_id)[1]), sequences)


def _path(root: Path, pair: Pair) -> Path:
    return root / "cascades" / f"{pair[0]}-{pair[1]}.{CASCADES_VERSION}.json"


def _write(root: Path, pair: Pair, cascades: Sequence[Cascade]) -> None:
    path = _path(root, pair)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, with_checksum("cascades", [asdict(one) for one in cascades]))
    except OSError as error:
        raise StoreError(f"{path} could not be written: {error}; free space or choose a writable --store") from error


def _read(path: Path) -> tuple[Cascade, ...]:
    return tuple(_cascade(one) for one in read_checked_json(path, "cascades", list, StoreError, REMEDY))


def _cascade(values: Mapping[str, Any]) -> Cascade:
    return Cascade(**{**values, "evaluation": Evaluation.from_dict(values["evaluation"])})
