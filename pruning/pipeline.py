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
from pruning.curves import CURVES_VERSION
from pruning.encoder import BaseModel
from pruning.errors import RecoveryError
from pruning.evaluation import evaluate
from pruning.files import digest_of
from pruning.masks.structures import FILL_VERSION, Curve, StructureMask, is_coarse, structure_mask
from pruning.masks.weights import WeightMask, less_zeros, mask_sparsity, two_four_mask, unstructured_mask
from pruning.prediction import Breath, judged_logits, no_breath
from pruning.quantization import MATRICES, QUANTIZATION_VERSION, quantize
from pruning.reconstruction import RECONSTRUCTION_VERSION, reconstruct, solved_keys
from pruning.recovered import RecoveredCut
from pruning.scores import scorer_named
from pruning.sequential import SEQUENTIAL_VERSION, recover_sequentially
from pruning.slim.convert import (
    DTYPES,
    build_slim,
    dense_mask,
    head_dims,
    held_bytes,
    in_dtype,
    layer_widths,
    slim_layers,
    zeroed_layers,
)
from pruning.slim.packed import TokenSequence
from pruning.slim.quantized import require_integers
from pruning.spec import Pattern, Precision, PruneSpec, Recover, Scope, Structures
from pruning.timing import Speed, items_per_second, median_latency
from pruning.unit_curves import UNIT_CURVES_VERSION
from pruning.unit_pass import UNIT_PASS_VERSION
from pruning.variants import Manifest
from pruning.workbench import Workbench

Ranking = Sequence[Curve] | Mapping[str, Tensor]
"""Cost curves along a scorer's order of structures, or its scores of single weights by tensor name."""
Mask = StructureMask | WeightMask

RECOVERY_VERSIONS: dict[Recover | None, int] = {
    Recover.RECONSTRUCT: RECONSTRUCTION_VERSION,
    Recover.SEQUENTIAL: SEQUENTIAL_VERSION,
}
MATRIX_WEIGHTS = tuple(f"{matrix}.weight" for matrix in MATRICES)

Step = Callable[[str], None]
"""Called with the name of each step as it begins."""


def build_variant(
    bench: Workbench, spec: PruneSpec, step: Step = lambda name: None, breath: Breath = no_breath
) -> Manifest:
    """Return the variant of ``spec``: the one in the store, or cut, evaluated, timed and written now.

    ``breath`` is called after every batch of rows.

    Raises:
        SpecError: no scorer of that name, or a sparsity that leaves nothing.
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
    with _timed(seconds, "time", step):
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
    )
    step("write")
    return bench.store.put(layers, manifest)


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
        SpecError, CacheError, RecoveryError, StoreError: as ``build_variant``.
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
    """Return float32 ``layers`` cut from ``base`` in ``precision``; int8 takes its ranges from ``rows``.

    Raises:
        PrecisionError: this machine, or this model, has no such precision.
    """
    if precision is Precision.INT8:
        return quantize(base, layers, rows, breath)
    return in_dtype(layers, DTYPES[precision])


def _cut_in_float32(
    bench: Workbench, spec: PruneSpec, breath: Breath, progress: Progress
) -> tuple[dict[str, Tensor], Cost, float]:
    if spec.sparsity == 0.0:
        return carried_out(bench, dense_mask(bench.base.shape), replace(spec, recover=Recover.NONE))
    if spec.recover is Recover.DISTILL:
        return _as_trained(bench, spec)
    ranking = ranking_of(bench, spec, progress, breath)
    return carried_out(bench, mask_of(bench, ranking, spec), spec, breath)


def ranking_of(
    bench: Workbench, spec: PruneSpec, progress: Progress = lambda done, total: None, breath: Breath = no_breath
) -> Ranking:
    """Return what every mask of the spec's scorer and pattern is chosen by, whatever the sparsity.

    Raises:
        SpecError: no scorer of that name.
        CacheError: as ``build_variant``.
    """
    scorer = scorer_named(spec.scorer)
    if spec.pattern is Pattern.STRUCTURED:
        return bench.curves(scorer, progress, breath, structures=spec.structures)
    return bench.weight_scores(scorer, progress, breath)


def mask_of(bench: Workbench, ranking: Ranking, spec: PruneSpec) -> Mask:
    """Return the mask of ``spec`` by the ranking of its scorer and pattern.

    Raises:
        SpecError: a sparsity that leaves nothing, or inputs that are no multiple of four for 2:4.
    """
    if not isinstance(ranking, Mapping):
        return structure_mask(ranking, bench.base.shape, spec.sparsity)
    if spec.pattern is Pattern.TWO_FOUR:
        return two_four_mask(ranking)
    return unstructured_mask(ranking, spec.sparsity, spec.scope or scorer_named(spec.scorer).scope)


def carried_out(
    bench: Workbench, mask: Mask, spec: PruneSpec, breath: Breath = no_breath
) -> tuple[dict[str, Tensor], Cost, float]:
    """Return (encoder layers in float32, cost, achieved sparsity) of a mask, recovered as ``spec`` says.

    Of recoveries, distillation is not done here: it takes minutes, and ``pruning.recovery`` does it.
    """
    base, shape = bench.base, bench.base.shape
    if not isinstance(mask, StructureMask):
        dense = structured_cost(shape, [shape.num_heads] * shape.num_layers, [shape.ffn] * shape.num_layers)
        return zeroed_layers(base, mask), less_zeros(dense, mask), mask_sparsity(mask)
    cost = structured_cost(shape, mask.head_counts, mask.neuron_counts, mask.head_dims(shape))
    return _recovered(bench, spec, mask, breath), cost, mask.sparsity(shape)


def _recovered(bench: Workbench, spec: PruneSpec, mask: StructureMask, breath: Breath) -> dict[str, Tensor]:
    """Return the layers that a structured mask leaves, their matrices as the spec's recovery has them."""
    if spec.recover is Recover.NONE:
        return slim_layers(bench.base, mask)
    keys = {} if mask.units is None else solved_keys(bench.base, mask, bench.unit_statistics())
    if spec.recover is Recover.SEQUENTIAL:
        return recover_sequentially(bench.base, mask, bench.train.sequences, breath, keys)
    return slim_layers(bench.base, mask, reconstruct(bench.base, bench.calibration, mask) | keys)


def _as_trained(bench: Workbench, spec: PruneSpec) -> tuple[dict[str, Tensor], Cost, float]:
    """Return the layers that training left of a cut. Weights that were zeroed one by one are zeros still."""
    shape, layers = bench.base.shape, bench.recovered.load(recovered_cut(bench, spec))
    cost = structured_cost(shape, *layer_widths(layers, shape), head_dims(layers, shape))
    if spec.pattern is not Pattern.STRUCTURED:
        cost = less_zeros(cost, {name: layers[name] != 0 for name in layers if name.endswith(MATRIX_WEIGHTS)})
    return layers, cost, 1.0 - cost.prunable_parameters / shape.prunable_weights


def recovered_cut(bench: Workbench, spec: PruneSpec) -> RecoveredCut:
    """Return what training made of a cut: by the recipe that was asked for last.

    Raises:
        RecoveryError: it was not trained; the command that does so is named.
        StoreError: what is there is damaged.
    """
    scorer_named(spec.scorer)
    found = bench.recovered.chosen(cut_id(bench, spec))
    if found is None:
        way = f"--scorer {spec.scorer} --pattern {spec.pattern}" + (f" --scope {spec.scope}" if spec.scope else "")
        way += "" if spec.structures is Structures.HEADS else f" --structures {spec.structures}"
        raise RecoveryError(
            f"no recovered cut of sparsity {spec.sparsity:g} ({spec.pattern}, {spec.scorer}) in "
            f"{bench.recovered.folder}; it takes minutes of training: run 'sparsedial recover MODEL --sparsity "
            f"{spec.sparsity:g} {way} --rows ROWS' first, with this store"
        )
    return found


def cut_id(bench: Workbench, spec: PruneSpec) -> str:
    """Return the id of the cut that distillation of ``spec`` begins with, whoever judges it."""
    start = spec.before_training()
    return digest_of({"base": bench.base.digest, "sparsity": spec.sparsity, **_cut_identity(bench, start)})[:16]


def identify(bench: Workbench, spec: PruneSpec) -> str:
    """Return the variant id of ``spec``: a digest of all that its weights and its evaluation depend on."""
    identity: dict[str, object] = {
        "base": bench.base.digest,
        "evaluation": bench.evaluation.digest,
        "sparsity": spec.sparsity,
    }
    if spec.precision is not Precision.FLOAT32:
        identity["precision"] = spec.precision
    if spec.precision is Precision.INT8:
        identity |= {"quantization_version": QUANTIZATION_VERSION, "calibration": bench.key.digest}
    if spec.sparsity > 0.0:
        identity |= _cut_identity(bench, spec)
        if spec.recover is Recover.DISTILL:
            identity["recovered"] = recovered_cut(bench, spec).digest
    return digest_of(identity)[:16]


def _cut_identity(bench: Workbench, spec: PruneSpec) -> dict[str, object]:
    """Return all that the weights of a cut depend on beside base model, sparsity and precision."""
    scorer = scorer_named(spec.scorer)
    identity: dict[str, object] = {
        "pattern": spec.pattern,
        "scorer": spec.scorer,
        "recover": spec.recover,
        "calibration": bench.key.digest,
        "scorer_version": scorer.version,
        "curves_version": CURVES_VERSION,
        "reconstruction_version": RECOVERY_VERSIONS.get(spec.recover),
    }
    coarse = is_coarse(bench.base.shape) or spec.structures is Structures.SUBLAYERS
    if spec.pattern is Pattern.STRUCTURED and coarse:
        identity["fill_version"] = FILL_VERSION
    if spec.structures is not Structures.HEADS:
        identity["structures"] = spec.structures
    if spec.structures is Structures.UNITS:
        identity["unit_versions"] = [UNIT_PASS_VERSION, UNIT_CURVES_VERSION]
    scope = spec.scope or scorer.scope
    if spec.pattern is Pattern.UNSTRUCTURED and scope is not Scope.GLOBAL:
        identity["scope"] = scope
    return identity


@contextmanager
def _timed(seconds: dict[str, float], name: str, step: Step) -> Iterator[None]:
    step(name)
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
