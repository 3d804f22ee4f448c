"""The story: a cut, the dense model as its teacher, rows, and at the end a variant like any other."""

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Protocol

import torch

from pruning.cutting import mask_of
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.errors import DataError, SpecError
from pruning.identity import cut_id
from pruning.masks.structures import StructureMask
from pruning.out_of_memory import memory_for
from pruning.pipeline import build_variant, cut
from pruning.quantization import input_ranges, with_ranges
from pruning.recovered import RecoveredCut
from pruning.recovery.checkpoint import Checkpoints
from pruning.recovery.crew import SOLO, Crew, of_worker_0
from pruning.recovery.criteria import STRUCTURE_CRITERIA, weight_criterion
from pruning.recovery.lesson import Lesson, computes_bfloat16
from pruning.recovery.recipe import Recipe
from pruning.recovery.rows import others_than, split
from pruning.recovery.structure_thinning import Counts, StructureThinning
from pruning.recovery.student import Student, kept_weights
from pruning.recovery.thinning import AnyThinning
from pruning.recovery.training import Report, train
from pruning.recovery.weight_thinning import WeightThinning
from pruning.scores import scorer_named
from pruning.slim.bert import SlimBert
from pruning.slim.convert import build_slim, dense_mask, in_dtype, slim_layers
from pruning.slim.quantized import require_integers
from pruning.spec import IMPORTED, Pattern, PruneSpec, Recover, Structures
from pruning.variants import Manifest
from pruning.workbench import Workbench


class Trainer(Protocol):
    """Has a cut trained, from its newest checkpoint if there is one, and what comes of it kept in the store."""

    def __call__(self, spec: PruneSpec, cut_name: str, recipe_id: str) -> None:
        """Train the cut of ``spec``, called ``cut_name``, by the recipe of that id; raises what ``recover`` raises."""


def recover(
    bench: Workbench,
    spec: PruneSpec,
    rows: LabelledSet,
    recipe: Recipe,
    *,
    resume: bool = False,
    device: str = "cpu",
    report: Report = lambda progress: None,
    trainer: Trainer | None = None,
) -> tuple[Manifest, RecoveredCut]:
    """Return the variant of ``spec`` after distillation, and how its training went.

    From now on it is what the cut stands for. Arguments and errors are those of ``trained_cut``.
    """
    found = trained_cut(bench, spec, rows, recipe, resume=resume, device=device, report=report, trainer=trainer)
    bench.recovered.choose(found.cut, found.recipe_id)
    return build_variant(bench, replace(spec, recover=Recover.DISTILL)), found


def trained_cut(
    bench: Workbench,
    spec: PruneSpec,
    rows: LabelledSet,
    recipe: Recipe,
    *,
    resume: bool = False,
    device: str = "cpu",
    report: Report = lambda progress: None,
    trainer: Trainer | None = None,
) -> RecoveredCut:
    """Return what this recipe makes of the cut of ``spec``: from the store, or trained and kept now.

    What stands for the cut does not change. The evaluation rows take no part: rows of the same text are left out of the
    training.

    Args:
        bench: calibrated.
        spec: the cut; its recovery is set to ``distill``.
        rows: labelled, of the same task; the messages about them count from 1, in their order.
        recipe: how to train.
        resume: go on from the checkpoint of this very recipe, if there is one; otherwise it is removed.
        device: where to train, in this process.
        report: called after every step, in this process.
        trainer: trains it elsewhere in place of this process.

    Raises:
        SpecError: nothing was cut.
        DataError: too few rows, or rows for another head than the model's.
        CacheError: the model is not calibrated.
        RecoveryError: the training cannot go on.
        PrecisionError: the recipe rounds to integers, which this machine does not multiply.
        HostMemoryError, DeviceMemoryError: there is no memory for it; the last checkpoint is whole.
        StoreError: the store cannot be written.
    """
    if rows.head is not bench.base.shape.head:
        raise DataError(
            f"{bench.base.name} is a model for {bench.base.shape.head}, and the rows are for {rows.head}; give rows "
            "of the model's own task"
        )
    if spec.sparsity == 0.0:
        raise SpecError("sparsity 0 cuts nothing, and there is nothing to recover; give the sparsity of a cut")
    if recipe.quantized:
        require_integers()
    spec = replace(spec, recover=Recover.DISTILL)
    cut_name, recipe_id = cut_id(bench, spec), recipe.digest_with(rows.digest)
    if bench.recovered.find(cut_name, recipe_id) is None:
        checkpoints = checkpoints_of(bench.root, cut_name, recipe_id)
        if not resume:
            checkpoints.clear()
        if trainer:
            trainer(spec, cut_name, recipe_id)
        else:
            train_cut(bench, spec, rows, recipe, device=device, report=report)
        checkpoints.clear()
    found = bench.recovered.find(cut_name, recipe_id)
    assert found is not None  # written now or before
    return found


def train_cut(
    bench: Workbench,
    spec: PruneSpec,
    rows: LabelledSet,
    recipe: Recipe,
    *,
    device: str = "cpu",
    report: Report = lambda progress: None,
    crew: Crew = SOLO,
) -> None:
    """Train the cut of ``spec`` in this process, as one of the ``crew``; its worker 0 keeps what comes of it.

    Every worker reads the newest checkpoint, if there is one; how many workers there were before does not matter.
    """
    where = torch.device(device)
    trained, held_out = split(others_than(bench.evaluation, rows), recipe.held_out_rows, recipe.seed)
    thinning = _thinning(bench, spec, recipe) if recipe.gradual else None
    start = replace(spec.before_training(), sparsity=0.0) if thinning else spec.before_training()
    layers, _, _ = cut(bench, start)
    if recipe.quantized:
        layers = with_ranges(layers, input_ranges(bench.base, layers, bench.train.sequences))
    layers = of_worker_0(layers, crew)
    kept = kept_weights(layers) if spec.zeros_stay and not thinning else None
    cut_name, recipe_id = cut_id(bench, spec), recipe.digest_with(rows.digest)
    checkpoints = checkpoints_of(bench.root, cut_name, recipe_id)
    with memory_for(
        f"training on {device} with {recipe.batch_rows} rows a step",
        "free some and go on with --resume, or train with fewer --batch-rows or shorter rows",
    ):
        outcome = train(
            Lesson(recipe, teacher_of(bench.base, where), rows, where, crew),
            Student(bench.base, layers, recipe, kept=kept, device=where),
            trained,
            held_out,
            checkpoints,
            thinning=thinning,
            resume=bool(checkpoints),
            report=report,
        )
    if crew.rank == 0:
        went = {"rows": len(trained), "held_out_rows": len(held_out), "device": where.type, "workers": crew.size}
        training = asdict(outcome.standing) | went
        recovered = RecoveredCut(cut=cut_name, recipe_id=recipe_id, recipe=recipe.as_dict(), training=training)
        bench.recovered.put(recovered, outcome.layers)


def checkpoints_of(root: Path, cut_name: str, recipe_id: str) -> Checkpoints:
    """Return the checkpoints of a recipe's run on a cut."""
    return Checkpoints(root, f"{cut_name}-{recipe_id}")


def _thinning(bench: Workbench, spec: PruneSpec, recipe: Recipe) -> AnyThinning:
    """Return what cuts the dense model to ``spec`` while it trains.

    Raises:
        SpecError: the cut is imported, the pattern is 2:4, which nothing leads to bit by bit, units inside heads go,
            the criterion is not the pattern's, or the cut would have rounds, and it is the training that goes on in
            steps.
    """
    if spec.scorer == IMPORTED:
        raise SpecError(f"scorer={IMPORTED!r} names a cut that is made already: use gradual=0, or another scorer")
    if spec.rounds > 1:
        raise SpecError(f"a gradual cut is chosen while training, without rounds={spec.rounds}: use 1, or gradual=0")
    if spec.pattern is Pattern.TWO_FOUR:
        raise SpecError("pattern='2:4' is cut at once: use gradual=0, or pattern='unstructured'")
    if spec.pattern is Pattern.UNSTRUCTURED:
        scope = spec.scope or scorer_named(spec.scorer).scope
        return WeightThinning(recipe, weight_criterion(recipe.criterion), spec.sparsity, scope)
    if spec.structures is Structures.UNITS:
        raise SpecError(
            f"gradual cuts take whole structures; with structures={spec.structures.value!r} use gradual=0, and units "
            "inside heads go before the training"
        )
    curves = bench.curves(scorer_named(spec.scorer), structures=spec.structures)

    @cache
    def counts_of(sparsity: float) -> Counts:
        mask = mask_of(bench, curves, replace(spec, sparsity=sparsity))
        assert isinstance(mask, StructureMask)
        return mask.head_counts, mask.neuron_counts

    def counts_at(share: float) -> Counts:
        """Never less than at the end: what is coarse or even on the way is not always a part of what went before."""
        now, end = counts_of(share * spec.sparsity), counts_of(spec.sparsity)
        heads, neurons = ([*map(max, one, other)] for one, other in zip(now, end, strict=True))
        return heads, neurons

    return StructureThinning(recipe, STRUCTURE_CRITERIA[recipe.criterion], counts_at)


def teacher_of(base: BaseModel, device: torch.device) -> SlimBert:
    """Return the dense model, in bfloat16 where that is faster: it does most of the work of a deep cut's training."""
    layers = slim_layers(base, dense_mask(base.shape))
    if computes_bfloat16(device):
        layers = in_dtype(layers, torch.bfloat16)
    return build_slim(base, layers).to(device)
