"""What ``sparsedial recover`` does with a model, its rows and its store. Torch comes with this file."""

from dataclasses import replace
from pathlib import Path

import torch

from pruning.data import LabelledSet
from pruning.errors import DataError, SpecError
from pruning.recovered import RecoveredCut
from pruning.recovery.distillation import recover
from pruning.recovery.recipe import Recipe
from pruning.scores import choice_named
from pruning.spec import IMPORTED, PruneSpec
from pruning.tasks import TASKS
from pruning.tokenization import TextTokenizer
from pruning.workbench import Workbench
from service.ladder import prepare_ladder
from service.settings import Device
from service.store_commands import Place, Rows, rows_of_variants
from service.terminal import progress_bar
from service.training_bar import training_bar


def recover_model(
    place: Place, spec: PruneSpec, rows: Path | None, recipe: Recipe, device: Device, *, resume: bool
) -> tuple[Path, Rows, RecoveredCut]:
    """Train a cut; return (store, rows of the dense model, the cut before and after, how the training went).

    Raises:
        PruningError: a spec, model, rows or store that cannot be used, or a training that cannot go on.
    """
    choice_named(spec.scorer)  # refused before the model is read
    where = device_named(device)
    bench = place.open()
    labelled = training_rows(bench, rows, place.evaluation)
    scored = spec.scorer != IMPORTED
    if scored:
        with progress_bar("scoring the model") as update:
            bench.calibrate(update)
    with training_bar(f"training at {spec.sparsity:g}") as report:
        manifest, recovered = recover(bench, spec, labelled, recipe, resume=resume, device=where, report=report)
    before = spec.before_training()
    rounded = [replace(before, precision=spec.precision)] if recipe.quantized else []
    specs = [replace(before, sparsity=0.0, recover=None), before, *rounded, manifest.spec]
    manifests = prepare_ladder(bench, specs, score=scored)
    return bench.root, rows_of_variants(bench, [one.variant_id for one in manifests]), recovered


def training_rows(bench: Workbench, rows: Path | None, evaluation: Path | None) -> LabelledSet:
    """Return the rows of a file, encoded, or those that score the model.

    Raises:
        DataError: the file cannot be used, or is that of the evaluation rows.
    """
    if rows is None:
        return bench.train
    if evaluation is not None and rows.resolve() == evaluation.resolve():
        raise DataError(f"--rows and --eval are the same file, {rows}; judge a model on rows that did not train it")
    tokenizer = TextTokenizer.load(bench.base.path)
    task = TASKS[bench.base.shape.head]
    return task.load(rows, bench.base.labels, tokenizer, min(task.max_tokens, bench.base.max_length))


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
