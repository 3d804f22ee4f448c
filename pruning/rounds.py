"""Choose a deep cut in rounds: cut a part, recover it, score what is left anew, cut on.

Scores are of the model that was scored. The deeper a cut, the less they say of what is left: TextPruner (Yang et al.,
2022) and oBERT (Kurtic et al., 2022) lose far less where they score again on the way. With N rounds a model is scored
anew whenever another Nth of its prunable weights has gone: at 1/N, 2/N, ... as far as they lie below the sparsity asked
for. In each round

    what went so far -> the dense model without it, recovered as the spec says -> scores on the calibration rows,

and the next part goes by these. What went stays gone. Departures: recovery always starts from the dense weights, so
that its errors do not add up; and where the model is scored does not depend on how deep a cut will be, so that deeper
cuts, and the levels of a ladder, share their rounds.

Only rankings are kept, under a key of all that the rounds before depend on: of structures the cost curves, small
documents; of single weights their scores, four bytes each. The gradients of a round go with it.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pruning.cache import unkept_calibration
from pruning.calibration import Calibration, CalibrationKey
from pruning.capture import Progress, capture
from pruning.curve_cache import CurveCache
from pruning.curves import cost_curves
from pruning.cutting import Mask, Ranking, carried_out, mask_of, ranking_of
from pruning.encoder import BaseModel
from pruning.identity import cut_digest
from pruning.masks.structures import CostCurve, Kind, StructureMask
from pruning.prediction import Breath, no_breath
from pruning.score_cache import ScoreCache, ScoreKey
from pruning.scores import Scorer, Streamed, StructureScores, scorer_named
from pruning.slim.convert import FUSED, dense_mask
from pruning.spec import Precision, PruneSpec
from pruning.weight_pass import weight_pass
from pruning.workbench import Workbench

MARGIN = 1e-9
"""A round that would end this near to the sparsity asked for is the last one."""


def mask_in_rounds(
    bench: Workbench, spec: PruneSpec, progress: Progress = lambda done, total: None, breath: Breath = no_breath
) -> Mask:
    """Return the mask of ``spec``, chosen in its rounds; those that were computed before are read.

    ``progress`` counts the rows of each pass, ``breath`` is called after every batch.

    Raises:
        SpecError, CacheError: as ``ranking_of`` and ``mask_of``.
    """
    ranking, before = ranking_of(bench, spec, progress, breath), None
    for level in levels_before(spec.sparsity, spec.rounds):
        stage = replace(spec, sparsity=level, precision=Precision.FLOAT32)
        before = within(mask_of(bench, ranking, stage), before)
        ranking = _ranked_anew(bench, stage, before, progress, breath)
    return within(mask_of(bench, ranking, spec), before)


def levels_before(sparsity: float, rounds: int) -> list[float]:
    """Return the sparsities at which a model is scored anew on the way to ``sparsity``."""
    return [number / rounds for number in range(1, rounds) if number / rounds < sparsity - MARGIN]


def within(mask: Mask, before: Mask | None) -> Mask:
    """Return ``mask`` without what went ``before``."""
    if before is None:
        return mask
    if isinstance(mask, StructureMask):
        assert isinstance(before, StructureMask)  # rounds of one spec have one pattern
        assert mask.units is None  # a spec with rounds takes whole structures
        return StructureMask(mask.heads_LN & before.heads_LN, mask.neurons_LF & before.neurons_LF)
    assert not isinstance(before, StructureMask)
    return {name: kept & before[name] for name, kept in mask.items()}


def _ranked_anew(bench: Workbench, stage: PruneSpec, mask: Mask, progress: Progress, breath: Breath) -> Ranking:
    """Return how the scorer ranks what a round left; what went before ranks last."""
    scorer = scorer_named(stage.scorer)
    key = replace(bench.key, weights=cut_digest(bench, stage))

    def scored() -> tuple[BaseModel, Calibration]:
        layers, _, _ = carried_out(bench, mask, stage, breath)
        cut = replace(bench.base, tensors=bench.base.tensors | _full_size(bench.base, layers, mask))
        return cut, _evidence(cut, bench, key, scorer, progress, breath)

    def curves() -> list[CostCurve]:
        assert isinstance(mask, StructureMask)
        cut, evidence = scored()
        scores = scorer.structures(cut, evidence)
        last = StructureScores(
            scores.heads_LN.masked_fill(~mask.heads_LN, -torch.inf),
            scores.neurons_LF.masked_fill(~mask.neurons_LF, -torch.inf),
        )
        return [_free_until(curve, mask) for curve in cost_curves(cut, evidence, last)]

    def weights() -> Mapping[str, Tensor]:
        cut, evidence = scored()
        return scorer.weights(cut, evidence)

    if isinstance(mask, StructureMask):
        return CurveCache(bench.root).get_or_solve(key.digest, scorer, curves)
    of_round = ScoreKey(calibration=key.digest, scorer=scorer.name, scorer_version=scorer.version)
    stored = ScoreCache(bench.root).get_or_make(of_round, weights)
    return {name: stored[name].masked_fill(~kept, -torch.inf) for name, kept in mask.items()}


def _evidence(
    cut: BaseModel, bench: Workbench, key: CalibrationKey, scorer: Scorer, progress: Progress, breath: Breath
) -> Calibration:
    """Return the calibration of a cut model, with the sums of a streamed scorer; nothing is written."""
    captured = capture(cut, bench.train, micro_batch=key.micro_batch, progress=progress, breath=breath)
    calibration = unkept_calibration(key, captured)
    if not isinstance(scorer, Streamed):
        return calibration

    def sums() -> Mapping[str, Tensor]:
        return weight_pass(cut, bench.train, scorer.plan, scorer.accumulator(cut), progress=progress, breath=breath)

    return replace(calibration, load_sums=sums)


def _free_until(curve: CostCurve, mask: StructureMask) -> CostCurve:
    """Return a curve along which what went before goes at no cost: between solved points it is interpolated."""
    kept = mask.heads_LN if curve.kind is Kind.HEAD else mask.neurons_LF
    gone = int((~kept[curve.layer]).sum())
    free = sum(curve.gone_after(steps) <= gone for steps in range(len(curve.costs)))
    return replace(curve, costs=(0.0,) * free + curve.costs[free:])


def _full_size(base: BaseModel, layers: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    """Return the encoder layers of a cut by slot name at the dense model's size: zeros where something went."""
    structures = mask if isinstance(mask, StructureMask) else dense_mask(base.shape)
    tensors = {}
    for layer in range(base.shape.num_layers):
        dims = structures.heads_LN[layer].repeat_interleave(base.shape.head_dim)
        neurons = structures.neurons_LF[layer]
        for part in ("weight", "bias"):
            fused = layers[f"layers.{layer}.qkv.{part}"].chunk(3)
            rows = {**dict(zip(FUSED, fused, strict=True)), "ffn_in": layers[f"layers.{layer}.ffn_in.{part}"]}
            for slot, values in rows.items():
                name = f"layers.{layer}.{slot}.{part}"
                tensors[name] = torch.zeros_like(base.tensors[name])
                tensors[name][neurons if slot == "ffn_in" else dims] = values
        for slot, kept in (("attention_output", dims), ("ffn_out", neurons)):
            name = f"layers.{layer}.{slot}"
            tensors[f"{name}.weight"] = torch.zeros_like(base.tensors[f"{name}.weight"])
            tensors[f"{name}.weight"][:, kept] = layers[f"{name}.weight"]
            tensors[f"{name}.bias"] = layers[f"{name}.bias"]
    return tensors
