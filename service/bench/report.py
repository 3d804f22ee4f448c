"""The figures of one run, and their JSON document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pruning.spec import Precision
from service.bench.engine import EngineReading
from service.bench.loops import LOOPS, LoopReading
from service.bench.subjects import Subject
from service.bench.verdict import most_that_sparsity_buys, verdict

ENGINE = "engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One subject and what it reached."""

    subject: Subject
    engine: EngineReading
    http: Mapping[str, LoopReading]
    """By the name of the loop; empty where no service was measured."""

    @property
    def ways(self) -> dict[str, tuple[float, Mapping[str, float]]]:
        """Texts a second and shares of the time of every way that was measured, the engine alone first."""
        loops = {name: (reading.texts_per_s, reading.shares) for name, reading in self.http.items()}
        return {ENGINE: (self.engine.texts_per_s, self.engine.shares), **loops}

    def inference_s(self, way: str) -> float:
        """Return the seconds of inference that a text takes, measured that way."""
        if way == ENGINE:
            return self.engine.stage_s["inference"] / self.engine.texts
        texts_per_s, shares = self.ways[way]
        return shares["inference"] / texts_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run."""

    model: str
    at: str
    """When it ended, ISO 8601 in UTC."""
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    threads: int
    """Of the engine that was measured alone."""
    mean_tokens: float
    """Of the texts that the engine answered."""
    ceilings: Mapping[Precision, float]
    """Best multiply-accumulates a second of one matrix."""
    levels: Sequence[Level]
    tokenizes: bool
    """False where sequences were drawn at random."""

    def dense_of(self, level: Level) -> Level:
        """Return the dense level of the same precision."""
        return next(
            one
            for one in self.levels
            if one.subject.spec.sparsity == 0.0 and one.subject.spec.precision is level.subject.spec.precision
        )

    def ideal(self, level: Level) -> float:
        """Return dense multiply-accumulates over the level's: its speed-up if nothing but them took time."""
        return self.dense_of(level).engine.macs / level.engine.macs

    def speedup(self, level: Level, way: str) -> float:
        """Return texts a second over those of the dense level of the same precision, measured the same way."""
        return level.ways[way][0] / self.dense_of(level).ways[way][0]

    def inference_speedup(self, level: Level, way: str) -> float:
        """Return how many times less time inference takes for a text than in the dense level of the same precision.

        Where this stays behind the ideal, inference is more than multiplications, or cores are shared with others.
        """
        return self.dense_of(level).inference_s(way) / level.inference_s(way)

    def speedup_over_float32(self, level: Level, way: str) -> float | None:
        """Return texts a second over those of the float32 dense level; None where that was not measured."""
        dense = [one for one in self.levels if one.subject.spec.sparsity == 0.0]
        plain = [one for one in dense if one.subject.spec.precision is Precision.FLOAT32]
        return level.ways[way][0] / plain[0].ways[way][0] if plain else None

    def of_ceiling(self, level: Level) -> float:
        """Return the share of the best matrix rate that the forward pass reaches."""
        return level.engine.macs_per_s / self.ceilings[level.subject.spec.precision]


def document_of(report: Report) -> dict[str, Any]:
    """Return the report as ``--json`` prints it."""
    return {
        "model": report.model,
        "at": report.at,
        "machine": dict(report.machine),
        "versions": dict(report.versions),
        "threads": report.threads,
        "texts": report.levels[0].engine.texts,
        "mean_tokens": report.mean_tokens,
        "tokenized": report.tokenizes,
        "ceilings": {precision.value: {"gflops": 2e-9 * rate} for precision, rate in report.ceilings.items()},
        "loops": {loop.name: {"clients": loop.clients, "texts_per_request": loop.texts} for loop in LOOPS},
        "levels": [_level_document(report, level) for level in report.levels],
    }


def _level_document(report: Report, level: Level) -> dict[str, Any]:
    subject, engine = level.subject, level.engine
    spec = subject.spec.as_dict()
    return {
        "variant": subject.variant,
        "requested_sparsity": spec.pop("sparsity"),
        "achieved_sparsity": subject.achieved_sparsity,
        **spec,
        "macs_per_text": engine.macs / engine.texts,
        "ideal_speedup": report.ideal(level),
        ENGINE: {
            "median_texts_per_s": engine.median_texts_per_s,
            "gflops": 2e-9 * engine.macs_per_s,
            "of_ceiling": report.of_ceiling(level),
            "stage_ms_per_text": {stage: 1e3 * s / engine.texts for stage, s in engine.stage_s.items()},
            **_way_document(report, level, ENGINE),
        },
        "http": {
            name: {
                "requests": reading.requests,
                "latency_p50_ms": reading.latency_p50_ms,
                "latency_p99_ms": reading.latency_p99_ms,
                "stage_ms_per_request": dict(reading.stage_ms),
                **_way_document(report, level, name),
            }
            for name, reading in level.http.items()
        },
    }


def _way_document(report: Report, level: Level, way: str) -> dict[str, Any]:
    texts_per_s, shares = level.ways[way]
    most = most_that_sparsity_buys(shares)
    return {
        "texts_per_s": texts_per_s,
        "speedup": report.speedup(level, way),
        "inference_speedup": report.inference_speedup(level, way),
        "speedup_over_float32_dense": report.speedup_over_float32(level, way),
        "shares": dict(shares),
        "most_that_sparsity_buys": None if most == float("inf") else most,
        "verdict": verdict(shares),
    }
