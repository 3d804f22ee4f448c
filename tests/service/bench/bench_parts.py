"""Subjects and reports made by hand."""

from loadtests.records import Reply
from pruning.encoder import BaseModel
from pruning.random_model import even_mask, random_model
from pruning.slim.convert import build_slim, slim_layers
from pruning.spec import Precision, PruneSpec
from service.bench.engine import EngineReading
from service.bench.loops import LOOPS, LoopReading
from service.bench.report import Level, Report
from service.bench.subjects import Subject


def subject_of(base: BaseModel, sparsity: float, precision: Precision = Precision.FLOAT32) -> Subject:
    """Return an even cut of random weights of the base's shape."""
    mask = even_mask(base.shape, sparsity)
    made = random_model("random", base.shape)
    return Subject(
        spec=PruneSpec(sparsity=sparsity, precision=precision),
        achieved_sparsity=mask.sparsity(base.shape),
        variant=f"variant-{sparsity:g}",
        shape=base.shape,
        heads=mask.head_counts,
        neurons=mask.neuron_counts,
        model=build_slim(made, slim_layers(made, mask)),
    )


def engine_reading(inference_s: float, macs: int = 1000) -> EngineReading:
    stage_s = {"tokenization": 0.2, "packing": 0.1, "inference": inference_s, "answer": 0.1}
    return EngineReading(texts=64, macs=macs, stage_s=stage_s, median_s=inference_s + 0.2)


def loop_reading(texts_per_s: float, inference: float = 0.4) -> LoopReading:
    return LoopReading(
        requests=10,
        texts_per_s=texts_per_s,
        latency_p50_ms=5.0,
        latency_p99_ms=9.0,
        stage_ms={"tokenization": 1.0, "queue": 1.0, "inference": 2.0, "answer": 0.5, "http": 0.5},
        shares={"tokenization": 0.1, "inference": inference, "rest": 0.9 - inference},
    )


def report_of(levels: list[Level]) -> Report:
    return Report(
        model="tiny",
        at="2026-01-05T09:30:00+00:00",
        machine={"machine": "two cores"},
        versions={"torch": "2"},
        threads=2,
        mean_tokens=9.0,
        ceilings={level.subject.spec.precision: 4000.0 for level in levels},
        levels=levels,
        tokenizes=True,
    )


def level_of(subject: Subject, engine: EngineReading, rate: float | None = None) -> Level:
    http = {} if rate is None else {loop.name: loop_reading(rate) for loop in LOOPS}
    return Level(subject=subject, engine=engine, http=http)


def timed_reply(sent_s: float, done_s: float, *, inference_ms: float = 4.0, status: int = 200) -> Reply:
    """Return a reply that tells its times: 1 ms of tokenization, 2 of queue, 1 of ranking beside the inference."""
    return Reply(
        index=0,
        intended_s=sent_s,
        sent_s=sent_s,
        done_s=done_s,
        status=status,
        error=None,
        generation=1,
        sparsity=0.0,
        connection=0,
        times_ms={
            "x-tokenization-time": 1.0,
            "x-queue-time": 2.0,
            "x-inference-time": inference_ms,
            "x-total-time": inference_ms + 4.0,
        },
    )
