"""Parts of tests of cascades: two levels, and a threshold between what they are sure of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pruning.cascade import Cascade, margins
from pruning.encoder import BaseModel
from pruning.evaluation import Evaluation
from pruning.metrics import Metric
from pruning.tokenization import TextTokenizer
from service.engine import Engine, Live
from service.levels import Wish
from service.metrics import ReplicaMetrics
from service.policy import Policy
from service.runtime import InferenceRuntime
from service.settings import Settings
from service.shelf import EngineShelf
from tests.service.inference_parts import CARD, engine_of
from tests.service.test_runtime import query

TEXTS = ["good", "the film was not very good", "bad food", "we hated it", "fine and warm", "it was the film"]


FREE = Policy(accuracy_floor=0.0)


def cascade(target: float, threshold: float = 0.5) -> Cascade:
    worth = Evaluation(metric=Metric(name="accuracy", value=0.9, low=0.8, high=0.95), agreement=target, rows=600)
    return Cascade(
        cascade_id=f"c{target:g}",
        variant_id="half",
        dense_id="dense",
        target=target,
        threshold=threshold,
        calibration_agreement=target,
        calibration_rows=1000,
        calibration_digest="",
        apart=True,
        escalated=0.2,
        evaluation=worth,
    )


@dataclass
class Service:
    """A runtime with a dense and a sparse level, and what each would answer."""

    runtime: InferenceRuntime
    metrics: ReplicaMetrics
    threshold: float
    alone: list[Any]
    dense: list[Any]


@asynccontextmanager
async def serving(
    base: BaseModel, model_dir: Path, dense: Engine | None = None, settings: Settings | None = None
) -> AsyncIterator[Service]:
    """Serve with a threshold between the margins of ``TEXTS``, so that the level is sure of half of them."""
    levels: dict[str, Engine] = {"dense": dense or engine_of(base, "dense"), "half": engine_of(base, "half", 0.5)}
    encoded = TextTokenizer.load(model_dir).encode(TEXTS, max_length=base.max_length)
    middle = sorted(margins(levels["half"].predict(encoded).numpy()))[2:4]
    threshold = float(sum(middle)) / 2
    shelf = EngineShelf(lambda variant_id: levels[variant_id], Live(7, levels["half"]))
    await shelf.keep_resident(("dense", "half"))
    metrics = ReplicaMetrics(CARD.version)
    runtime = InferenceRuntime(
        shelf, TextTokenizer.load(model_dir), metrics, settings or Settings(), replica_id="r1",
        cascades={"half": (cascade(0.99, threshold),)},
    )  # fmt: skip
    runtime.dial.heed(Policy(accuracy_floor=0.0, shadow_fraction=0.0))
    runtime.start()
    alone = await answers(runtime, Wish(sparsity=0.5))
    yield Service(runtime, metrics, threshold, alone, [] if dense else await answers(runtime, Wish(sparsity=0.0)))
    await runtime.stop()


async def answers(runtime: InferenceRuntime, wish: Wish) -> list[Any]:
    return list(orjson.loads((await runtime.classify(query(*TEXTS, wish=wish))).body))


CASCADED = Wish(sparsity=0.5, cascade=True)
