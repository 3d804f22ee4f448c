"""The story of one measurement: subjects, the machine's ceiling, the engine alone, then a service of its own."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from loadtests.errors import LoadTestError
from loadtests.machine import certificate
from loadtests.texts import load_texts
from pruning.ceiling import ceiling, matrix_sizes
from pruning.cost import Shape
from pruning.errors import DataError, PrecisionError
from pruning.random_model import random_sequences, shape_named
from pruning.slim.quantized import require_integers
from pruning.spec import Precision
from pruning.tasks.labels import read_rows
from pruning.tokenization import Encoded, Text, TextTokenizer
from service.bench.engine import BATCH_TEXTS, Batch, measure_engine
from service.bench.loops import LoopReading, measure_loops
from service.bench.own_service import own_service
from service.bench.report import Level, Report
from service.bench.subjects import Subject, random_subjects, stored_subjects
from service.info import VERSIONS
from service.ladder import ladder_specs, prepare_ladder
from service.served import require_served
from service.settings import Settings
from service.sources import Sources, model_dir, rows_of
from service.store_commands import Place
from service.terminal import progress_bar, spinner
from service.version import VERSION

SHAPE_BATCHES = 64
"""Batches of a random shape that are there to be used."""


def bench_model(
    place: Place, settings: Settings, precisions: Sequence[Precision], texts: Path | None, seconds: float, *, http: bool
) -> Report:
    """Return what a model's levels reach; whatever is missing of its ladders is made first.

    Args:
        place: model, rows and store.
        settings: levels, scorer and pattern.
        precisions: each is a ladder of its own.
        texts: a file of texts to answer; None takes the evaluation rows.
        seconds: length of one reading.
        http: whether a service is started and measured too.

    Raises:
        PruningError: the model, rows, texts or store cannot be used, or the service did not come up.
    """
    _check(precisions)
    bench = place.open()
    require_served(bench.base)
    folder = model_dir(place.model)
    train, evaluation = rows_of(folder, place.train, place.evaluation)
    answered = _texts(texts, evaluation, bench.base.labels)
    manifests = [
        manifest
        for precision in precisions
        for manifest in prepare_ladder(
            bench, ladder_specs(settings.levels, settings.scorer, settings.pattern, precision=precision)
        )
    ]
    subjects = stored_subjects(bench, manifests)
    tokenizer = TextTokenizer.load(folder)
    batches: list[Batch] = [
        partial(tokenizer.encode, answered[start : start + BATCH_TEXTS], max_length=bench.base.max_length)
        for start in range(0, len(answered), BATCH_TEXTS)
    ]
    report = _engine_report(place.model, subjects, batches, seconds, tokenizes=True)
    if not http:
        return report
    sources = Sources(folder, train, evaluation, bench.root)
    flags = ("--levels", ",".join(map(str, settings.levels)), "--precision", precisions[0].value, "--device", "cpu")
    with spinner("starting a service of its own") as tell, own_service(sources, flags, tell) as service:
        with progress_bar("measuring over HTTP") as update:
            specs = [manifest.spec for manifest in manifests]
            loops = asyncio.run(measure_loops(service, specs, answered, seconds=seconds, progress=update))
        tell("stopping")
    return _with_loops(report, loops)


def bench_shape(
    name: str, settings: Settings, precisions: Sequence[Precision], lengths: Sequence[int], seconds: float
) -> Report:
    """Return what the engine reaches on random weights of a shape, with sequences of ``lengths`` tokens in turn.

    Raises:
        SpecError: no shape of that name.
        DataError: a length that the shape has no positions for.
        PrecisionError: this machine does not compute one of the precisions.
    """
    _check(precisions)
    shape = shape_named(name)
    if not lengths or not all(1 <= length <= shape.positions for length in lengths):
        raise DataError(f"--lengths must be from 1 to {shape.positions} tokens; got {', '.join(map(str, lengths))}")
    sequences = random_sequences(lengths, SHAPE_BATCHES * BATCH_TEXTS, shape.vocabulary)
    with spinner(f"building {name} with random weights"):
        subjects = random_subjects(name, shape, settings.levels, precisions, sequences[:BATCH_TEXTS])
    batches: list[Batch] = [
        partial(_as_they_are, sequences[start : start + BATCH_TEXTS]) for start in range(0, len(sequences), BATCH_TEXTS)
    ]
    return _engine_report(f"{name} (random weights)", subjects, batches, seconds, tokenizes=False)


def _check(precisions: Sequence[Precision]) -> None:
    for precision in precisions:
        if precision.only_on not in (None, "cpu"):
            raise PrecisionError(
                f"{precision} is served on GPUs, and bench measures the CPU; choose another --precision"
            )
    if Precision.INT8 in precisions:
        require_integers()


def _as_they_are(sequences: Sequence[Encoded]) -> Sequence[Encoded]:
    return sequences


def _texts(path: Path | None, evaluation: Path, labels: Sequence[str]) -> list[Text]:
    """Return the texts to answer.

    Raises:
        DataError: the file cannot be read, or holds fewer texts than one batch.
    """
    texts: list[Text]
    if path is None:
        rows = read_rows(evaluation, labels)
        texts = [row.text if row.text_pair is None else (row.text, row.text_pair) for row in rows]
    else:
        try:
            texts = list(load_texts(path))
        except LoadTestError as error:
            raise DataError(f"--texts: {error}") from None
    if len(texts) < BATCH_TEXTS:
        raise DataError(f"{path or evaluation} has {len(texts)} texts; one batch takes {BATCH_TEXTS}: give more")
    return texts


def _engine_report(
    model: str, subjects: Sequence[Subject], batches: Sequence[Batch], seconds: float, *, tokenizes: bool
) -> Report:
    shape = subjects[0].shape
    with progress_bar("measuring the engine alone") as update:
        readings = measure_engine(subjects, batches, seconds=seconds, progress=update)
    ceilings = _ceilings(shape, [subject.spec.precision for subject in subjects])
    used = [len(sequence.ids) for batch in batches[: readings[0].texts // BATCH_TEXTS] for sequence in batch()]
    return Report(
        model=model,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=certificate(),
        versions={"sparsedial": VERSION, **VERSIONS},
        threads=torch.get_num_threads(),
        mean_tokens=sum(used) / len(used),
        ceilings=ceilings,
        levels=[Level(subject=subject, engine=one, http={}) for subject, one in zip(subjects, readings, strict=True)],
        tokenizes=tokenizes,
    )


def _ceilings(shape: Shape, precisions: Sequence[Precision]) -> dict[Precision, float]:
    with spinner("measuring the machine's matrix rate") as tell:
        ceilings = {}
        for precision in dict.fromkeys(precisions):
            tell(precision.value)
            ceilings[precision] = ceiling(precision, matrix_sizes(shape))
    return ceilings


def _with_loops(report: Report, loops: Sequence[dict[str, LoopReading]]) -> Report:
    levels = [replace(level, http=readings) for level, readings in zip(report.levels, loops, strict=True)]
    return replace(report, levels=levels, at=datetime.now(UTC).isoformat(timespec="seconds"))
