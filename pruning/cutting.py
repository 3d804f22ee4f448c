"""One cut of a scored model: a scorer's ranking, the mask that it gives, and the layers that the mask leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from pruning.capture import Progress
from pruning.compensation import compensated_weights
from pruning.cost import Cost, structured_cost
from pruning.input_grams import gram_of as input_gram
from pruning.masks.even import even_mask
from pruning.masks.structures import CostCurve, Curve, StructureMask, structure_mask
from pruning.masks.weights import WeightMask, mask_sparsity, two_four_mask, unstructured_mask
from pruning.prediction import Breath, no_breath
from pruning.reconstruction import reconstruct, require_tokens, solved_keys
from pruning.scores import scorer_named
from pruning.sequential import recover_sequentially
from pruning.slim.convert import dense_mask, slim_layers, zeroed_layers
from pruning.spec import Pattern, PruneSpec, Recover, Scope
from pruning.workbench import Workbench

Ranking = Sequence[Curve] | Mapping[str, Tensor]
"""Cost curves along a scorer's order of structures, or its scores of single weights by tensor name."""
Mask = StructureMask | WeightMask
SOLVED = (Recover.RECONSTRUCT, Recover.SEQUENTIAL)


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
        CacheError: the scope is latency, and none were measured.
    """
    if not isinstance(ranking, Mapping):
        if spec.scope is Scope.LAYERWISE:
            curves = [curve for curve in ranking if isinstance(curve, CostCurve)]  # by no other structures, all are
            return even_mask(curves, bench.base.shape, spec.sparsity)
        saved = bench.latencies.saved if spec.scope is Scope.LATENCY else None
        return structure_mask(ranking, bench.base.shape, spec.sparsity, saved)
    if spec.pattern is Pattern.TWO_FOUR:
        return two_four_mask(ranking)
    return unstructured_mask(ranking, spec.sparsity, spec.scope or scorer_named(spec.scorer).scope)


def carried_out(
    bench: Workbench, mask: Mask, spec: PruneSpec, breath: Breath = no_breath
) -> tuple[dict[str, Tensor], Cost, float]:
    """Return (encoder layers in float32, cost, achieved sparsity) of a mask, recovered as ``spec`` says.

    Of recoveries, distillation is not done here: it takes minutes, and ``pruning.recovery`` does it.

    Raises:
        DataError: too few calibration tokens to recover on.
        HostMemoryError: what it takes would not fit into the memory of this machine.
    """
    shape = bench.base.shape
    if spec.recover in SOLVED:
        require_tokens(sum(len(row.ids) for row in bench.train.sequences), max(shape.hidden, shape.ffn))
    if not isinstance(mask, StructureMask):
        dense = structured_cost(shape, [shape.num_heads] * shape.num_layers, [shape.ffn] * shape.num_layers)
        return _weights_recovered(bench, spec, mask, breath), less_zeros(dense, mask), mask_sparsity(mask)
    cost = structured_cost(shape, mask.head_counts, mask.neuron_counts, mask.head_dims(shape))
    return _recovered(bench, spec, mask, breath), cost, mask.sparsity(shape)


def _recovered(bench: Workbench, spec: PruneSpec, mask: StructureMask, breath: Breath) -> dict[str, Tensor]:
    """Return the layers that a structured mask leaves, their matrices as the spec's recovery has them."""
    if spec.recover not in SOLVED:
        return slim_layers(bench.base, mask)
    keys = {} if mask.units is None else solved_keys(bench.base, mask, bench.unit_statistics(breath=breath))
    if spec.recover is Recover.SEQUENTIAL:
        return recover_sequentially(bench.base, mask, bench.train.sequences, breath, keys)
    return slim_layers(bench.base, mask, reconstruct(bench.base, bench.calibration, mask) | keys)


def _weights_recovered(bench: Workbench, spec: PruneSpec, mask: WeightMask, breath: Breath) -> dict[str, Tensor]:
    """Return the layers at full size, zeros where a mask of single weights has them, recovered as the spec says."""
    if spec.recover is Recover.RECONSTRUCT:
        gram_of = partial(input_gram, calibration=bench.calibration, grams=bench.input_grams(breath=breath))
        tensors = bench.base.tensors | compensated_weights(bench.base, mask, gram_of, breath)
        return slim_layers(replace(bench.base, tensors=tensors), dense_mask(bench.base.shape))
    if spec.recover is Recover.SEQUENTIAL:
        return recover_sequentially(bench.base, mask, bench.train.sequences, breath)
    return zeroed_layers(bench.base, mask)


def less_zeros(dense: Cost, mask: Mapping[str, Tensor]) -> Cost:
    """Return the cost of an unstructured variant: fewer non-zero parameters, the same work and memory."""
    zeros = sum(int((~part).sum()) for part in mask.values())
    return replace(dense, parameters=dense.parameters - zeros, prunable_parameters=dense.prunable_parameters - zeros)
