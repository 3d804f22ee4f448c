"""The story: a model is scored once, and any cut of it is then arithmetic. Read this file first.

Workbench.calibrate   rows -> mask gradients and Gram matrices in the cache, once per model
build_variant         cached scores -> mask -> reconstruction -> slim -> evaluation -> store
recovery.distillation the same, with training between reconstruction and evaluation
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor

from pruning.capture import Progress
from pruning.cost import Cost, structured_cost
from pruning.cutting import carried_out, less_zeros
from pruning.encoder import BaseModel
from pruning.evaluation import evaluate
from pruning.identity import identify, recovered_cut
from pruning.imported import imported_layers
from pruning.prediction import Breath, judged_logits, no_breath, predict_logits
from pruning.probes import probes
from pruning.quantization import MATRICES, quantize, without_ranges
from pruning.rounds import mask_in_rounds
from pruning.slim.bert import SlimBert
from pruning.slim.convert import DTYPES, build_slim, dense_mask, head_dims, held_bytes, in_dtype, layer_widths
from pruning.slim.packed import TokenSequence
from pruning.slim.quantized import require_integers
from pruning.spec import IMPORTED, Precision, PruneSpec, Recover
from pruning.timing import Speed, items_per_second, median_latency
from pruning.variants import Manifest
from pruning.workbench import Workbench

MATRIX_WEIGHTS = tuple(f"{matrix}.weight" for matrix in MATRICES)

TIMING = "time"
"""Name of the step that reads how fast a variant is."""

Step = Callable[[str], None]
"""Called with the name of each step as it begins."""


def build_variant(
    bench: Workbench, spec: PruneSpec, step: Step = lambda name: None, breath: Breath = no_breath
) -> Manifest:
    """Return the variant of ``spec``: the one in the store, or cut, evaluated, timed and written now.

    ``breath`` is called after every batch of rows.

    Raises:
        SpecError: no scorer of that name, or a sparsity that leaves nothing.
        DataError: too few calibration tokens to recover on.
        HostMemoryError: a pass over the rows would not fit into the memory of this machine.
        CacheError: the calibration is missing, of another key, or damaged.
        RecoveryError: it is to be distilled, and was not trained.
        PrecisionError: this machine, or this model, has no such precision.
        StoreError: the variant cannot be written, or the record of its training is damaged.
    """
    variant_id = identify(bench, spec)
    if variant_id in bench.store:
        return bench.store.manifest(variant_id)

    seconds: dict[str, float] = {}
    with _timed(seconds, "cut", step):
        layers, cost, achieved = cut(bench, spec, breath, lambda done, total: step(f"score, {done} of {total} rows"))
    with _timed(seconds, "evaluate", step):
        model = build_slim(bench.base, layers)
        logits, screened = judged_logits(model, bench.evaluation.sequences, breath)
        evaluation = replace(evaluate(logits, bench.reference(), bench.evaluation), screened=screened)
    with _timed(seconds, TIMING, step):
        speed = Speed(
            latency_p50_ms=median_latency(model, bench.evaluation.sequences),
            items_per_s=items_per_second(model, bench.evaluation.sequences),
        )
    heads, neurons = layer_widths(layers, bench.base.shape)
    dims = head_dims(layers, bench.base.shape)
    manifest = Manifest(
        variant_id=variant_id,
        spec=spec,
        achieved_sparsity=achieved,
        base_digest=bench.base.digest,
        heads=heads,
        head_dims=None if set(dims) == {bench.base.shape.whole} else dims,
        neurons=neurons,
        cost=cost,
        evaluation=evaluation,
        speed=speed,
        build_seconds=seconds,
        probe_logits=_probe_logits(bench.base, model),
    )
    step("write")
    return bench.store.put(layers, manifest)


def _probe_logits(base: BaseModel, model: SlimBert) -> list[list[float]]:
    """Return the answers by which whoever loads the variant can tell that it is the same."""
    if not base.shape.head.pooled:
        return []
    answers: list[list[float]] = predict_logits(model, probes(base.max_length, base.shape.vocabulary)).tolist()
    return answers


def cut(
    bench: Workbench,
    spec: PruneSpec,
    breath: Breath = no_breath,
    progress: Progress = lambda done, total: None,
) -> tuple[dict[str, Tensor], Cost, float]:
    """Return (encoder layers in the spec's precision, cost, achieved sparsity) of a cut.

    It comes from the cache alone, but for what needs calibration rows in the cut, sequential recovery and int8 ranges,
    and for the first cut by a scorer with a pass of its own over the rows, which ``progress`` counts.

    Raises:
        SpecError, DataError, HostMemoryError, CacheError, RecoveryError, StoreError: as ``build_variant``.
        PrecisionError: this machine, or this model, has no such precision.
    """
    if spec.precision is Precision.INT8:
        require_integers()
    layers, cost, achieved = _cut_in_float32(bench, spec, breath, progress)
    layers = in_precision(bench.base, layers, spec.precision, bench.train.sequences, breath)
    return layers, replace(cost, bytes=held_bytes(bench.base, layers)), achieved


def in_precision(
    base: BaseModel,
    layers: Mapping[str, Tensor],
    precision: Precision,
    rows: Sequence[TokenSequence],
    breath: Breath = no_breath,
) -> dict[str, Tensor]:
    """Return float32 ``layers`` cut from ``base`` in ``precision``; int8 reads its ranges off ``rows``, if it has none.

    Raises:
        PrecisionError: this machine, or this model, has no such precision.
    """
    if precision is Precision.INT8:
        return quantize(base, layers, rows, breath)
    plain, _ = without_ranges(layers)
    return in_dtype(plain, DTYPES[precision])


def _cut_in_float32(
    bench: Workbench, spec: PruneSpec, breath: Breath, progress: Progress
) -> tuple[dict[str, Tensor], Cost, float]:
    if spec.sparsity == 0.0:
        return carried_out(bench, dense_mask(bench.base.shape), replace(spec, recover=Recover.NONE))
    if spec.recover is Recover.DISTILL:
        return _as_trained(bench, spec)
    if spec.scorer == IMPORTED:
        return _as_counted(bench, spec, imported_layers(bench.base, spec))
    return carried_out(bench, mask_in_rounds(bench, spec, progress, breath), spec, breath)


def _as_trained(bench: Workbench, spec: PruneSpec) -> tuple[dict[str, Tensor], Cost, float]:
    """Return the layers that training left of a cut. Weights that were zeroed one by one are zeros still."""
    return _as_counted(bench, spec, bench.recovered.load(recovered_cut(bench, spec)))


def _as_counted(bench: Workbench, spec: PruneSpec, layers: dict[str, Tensor]) -> tuple[dict[str, Tensor], Cost, float]:
    """Return layers with their cost and the sparsity that they have."""
    shape = bench.base.shape
    cost = structured_cost(shape, *layer_widths(layers, shape), head_dims(layers, shape))
    if spec.zeros_stay:
        cost = less_zeros(cost, {name: layers[name] != 0 for name in layers if name.endswith(MATRIX_WEIGHTS)})
    return layers, cost, 1.0 - cost.prunable_parameters / shape.prunable_weights


@contextmanager
def _timed(seconds: dict[str, float], name: str, step: Step) -> Iterator[None]:
    step(name)
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
