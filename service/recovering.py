"""What ``sparsedial recover`` does with a model, its rows and its store. Torch comes with this file."""

from dataclasses import replace
from pathlib import Path

import torch

from pruning.errors import SpecError
from pruning.recovered import RecoveredCut
from pruning.recovery.distillation import recover
from pruning.recovery.recipe import Recipe
from pruning.scores import choice_named
from pruning.spec import IMPORTED, PruneSpec
from service.ladder import prepare_ladder
from service.settings import Device
from service.sources import Sources, rows_of
from service.store_commands import Place, Rows, rows_of_variants
from service.terminal import progress_bar
from service.training_bar import training_bar
from service.training_crew import CrewTrainer, Hiring
from service.training_rows import training_rows


def recover_model(
    place: Place, spec: PruneSpec, rows: Path | None, recipe: Recipe, hiring: Hiring, *, resume: bool
) -> tuple[Path, Rows, RecoveredCut]:
    """Train a cut; return (store, rows of the dense model, the cut before and after, how the training went).

    One worker is this process; Ray has a part in the training of several alone.

    Raises:
        PruningError: a spec, model, rows or store that cannot be used, or a training that cannot go on.
    """
    choice_named(spec.scorer)  # refused before the model is read
    hiring.check(recipe)
    alone = hiring.workers == 1
    where = device_named(hiring.device) if alone else "cpu"
    bench = place.open()
    train, evaluation = rows_of(bench.base.path, place.train, place.evaluation)
    rows = rows or train
    labelled = training_rows(bench.base, rows, evaluation)
    scored = spec.scorer != IMPORTED
    if scored:
        with progress_bar("scoring the model") as update:
            bench.calibrate(update)
    with training_bar(f"training at {spec.sparsity:g}") as report:
        trainer = None
        if not alone:
            sources = Sources(*(path.resolve() for path in (bench.base.path, train, evaluation, bench.root)))
            trainer = CrewTrainer(
                hiring=hiring, bench=bench, sources=sources, rows=rows.resolve(), recipe=recipe, report=report
            )
        manifest, recovered = recover(
            bench, spec, labelled, recipe, resume=resume, device=where, report=report, trainer=trainer
        )
    before = spec.before_training()
    rounded = [replace(before, precision=spec.precision)] if recipe.quantized else []
    specs = [replace(before, sparsity=0.0, recover=None), before, *rounded, manifest.spec]
    manifests = prepare_ladder(bench, specs, score=scored)
    return bench.root, rows_of_variants(bench, [one.variant_id for one in manifests]), recovered


def device_named(device: Device) -> str:
    """Return torch's name of a device; ``auto`` is a GPU where there is one.

    Raises:
        SpecError: a GPU is asked for, and there is none.
    """
    if device is Device.AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device is Device.CUDA and not torch.cuda.is_available():
        raise SpecError("--device cuda: torch sees no GPU here; use auto or cpu")
    return device.value
