"""The story: a cut, the dense model as its teacher, rows, and at the end a variant like any other."""

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import torch

from pruning.cost import HeadDims
from pruning.data import LabelledSet
from pruning.errors import SpecError
from pruning.heads import Head
from pruning.masks.structures import StructureMask, structure_mask
from pruning.pipeline import build_variant, cut, cut_id
from pruning.recovered import RecoveredCut
from pruning.recovery.checkpoint import Checkpoints
from pruning.recovery.lesson import Lesson, computes_bfloat16
from pruning.recovery.recipe import Recipe
from pruning.recovery.rows import others_than, split
from pruning.recovery.student import Student, kept_weights
from pruning.recovery.thinning import Counts, Thinning
from pruning.recovery.training import Report, train
from pruning.scores import scorer_named
from pruning.slim.bert import SlimBert
from pruning.slim.convert import build_slim, dense_mask, in_dtype, slim_layers
from pruning.spec import Pattern, PruneSpec, Recover, Structures
from pruning.variants import Manifest
from pruning.workbench import Workbench


def recover(
    bench: Workbench,
    spec: PruneSpec,
    rows: LabelledSet,
    recipe: Recipe,
    *,
    resume: bool = False,
    device: str = "cpu",
    report: Report = lambda progress: None,
) -> tuple[Manifest, RecoveredCut]:
    """Return the variant of ``spec`` after distillation, and how its training went.

    What this recipe made of this cut before is taken from the store, whatever stands for the cut now. The evaluation
    rows take no part: rows of the same text are left out of the training.

    Args:
        bench: calibrated.
        spec: the cut; its recovery is set to ``distill``.
        rows: labelled, of the same task; the messages about them count from 1, in their order.
        recipe: how to train.
        resume: go on from the checkpoint of this very recipe, if there is one; otherwise it is removed.
        device: where to train.
        report: called after every step.

    Raises:
        SpecError: nothing was cut, gradually what only goes at once, or the model does not pick labels for texts: the
            loss is that of such answers.
        DataError: too few rows.
        CacheError: the model is not calibrated.
        RecoveryError: the training cannot go on.
        StoreError: the store cannot be written.
    """
    if bench.base.shape.head is not Head.LABEL:
        raise SpecError(
            f"{bench.base.name} is a model for {bench.base.shape.head}, and only those for {Head.LABEL} are trained; "
            "use recover='reconstruct'"
        )
    if spec.sparsity == 0.0:
        raise SpecError("sparsity 0 cuts nothing, and there is nothing to recover; give the sparsity of a cut")
    spec = replace(spec, recover=Recover.DISTILL)
    cut_name, recipe_id = cut_id(bench, spec), recipe.digest_with(rows.digest)
    if bench.recovered.find(cut_name, recipe_id) is None:
        checkpoints = checkpoints_of(bench.root, cut_name, recipe_id)
        _train(bench, spec, rows, recipe, checkpoints, resume, torch.device(device), report)
        checkpoints.clear()
    bench.recovered.choose(cut_name, recipe_id)
    found = bench.recovered.find(cut_name, recipe_id)
    assert found is not None  # written now or before
    return build_variant(bench, spec), found


def checkpoints_of(root: Path, cut_name: str, recipe_id: str) -> Checkpoints:
    """Return the checkpoints of a recipe's run on a cut."""
    return Checkpoints(root, f"{cut_name}-{recipe_id}")


def _train(
    bench: Workbench,
    spec: PruneSpec,
    rows: LabelledSet,
    recipe: Recipe,
    checkpoints: Checkpoints,
    resume: bool,
    device: torch.device,
    report: Report,
) -> None:
    """Train the cut of ``spec`` and keep what comes of it."""
    if not resume:
        checkpoints.clear()
    trained, held_out = split(others_than(bench.evaluation, rows), recipe.held_out_rows, recipe.seed)
    thinning = _thinning(bench, spec, recipe, device) if recipe.gradual else None
    start = replace(spec.before_training(), sparsity=0.0) if thinning else spec.before_training()
    layers, _, _ = cut(bench, start)
    kept = None if spec.pattern is Pattern.STRUCTURED else kept_weights(layers)
    outcome = train(
        Lesson(recipe, _teacher(bench, device), rows, device),
        Student(bench.base, layers, recipe, kept=kept, device=device),
        trained,
        held_out,
        checkpoints,
        thinning=thinning,
        resume=bool(checkpoints),
        report=report,
    )
    recovered = RecoveredCut(
        cut=cut_id(bench, spec),
        recipe_id=recipe.digest_with(rows.digest),
        recipe=recipe.as_dict(),
        training=asdict(outcome.standing)
        | {"rows": len(trained), "held_out_rows": len(held_out), "device": device.type},
    )
    bench.recovered.put(recovered, outcome.layers)


def _thinning(bench: Workbench, spec: PruneSpec, recipe: Recipe, device: torch.device) -> Thinning:
    if spec.pattern is not Pattern.STRUCTURED:
        raise SpecError(f"gradual cuts take heads and neurons; with pattern={spec.pattern.value!r} use gradual=0")
    shape, curves = bench.base.shape, bench.curves(scorer_named(spec.scorer), structures=spec.structures)

    @cache
    def mask_at(share: float) -> StructureMask:
        return structure_mask(curves, shape, share * spec.sparsity)

    def counts_at(share: float) -> Counts:
        return mask_at(share).head_counts, mask_at(share).neuron_counts

    def dims_at(share: float) -> list[HeadDims]:
        return mask_at(share).head_dims(shape)

    inside_heads = spec.structures is Structures.UNITS
    return Thinning(recipe, counts_at, shape.head_dim, device, dims_at if inside_heads else None)


def _teacher(bench: Workbench, device: torch.device) -> SlimBert:
    """Return the dense model, in bfloat16 where that is faster: it does most of the work of a deep cut's training."""
    layers = slim_layers(bench.base, dense_mask(bench.base.shape))
    if computes_bfloat16(device):
        layers = in_dtype(layers, torch.bfloat16)
    return build_slim(bench.base, layers).to(device)
