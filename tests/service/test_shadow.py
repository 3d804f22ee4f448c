import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pruning.encoder import load_base_model
from pruning.tokenization import Encoded, TextTokenizer
from service.dial import Dial
from service.engine import Engine, Live
from service.levels import Wish
from service.metrics import ReplicaMetrics
from service.policy import Policy
from service.protocol import Trial
from service.runtime import InferenceRuntime
from service.settings import Settings
from service.shadow import MOST_TEXTS, MOST_WAITING, Shadow
from service.shelf import EngineShelf
from service.tally_book import TallyBook
from tests.service.inference_parts import engine_of, sequence
from tests.service.test_runtime import query


class Bench:
    """A shadow whose dense model and whose idleness are in the test's hands."""

    def __init__(self, engines: dict[str, Engine], *, draws: list[float] | None = None) -> None:
        self.metrics, self.book = ReplicaMetrics("1"), TallyBook()
        self.shelf = EngineShelf(lambda variant_id: engines[variant_id], Live(1, engines["half"]))
        self.dial = Dial(self.shelf, self.metrics, Policy(accuracy_floor=0.0, shadow_fraction=0.5))
        self.idle = asyncio.Event()
        self.asked: list[int] = []
        self.error: Exception | None = None
        lots = iter(draws or [0.0] * 1000)
        self.shadow = Shadow(
            self.dial, self.book, self.metrics, answer=self.answer, idle=self.wait, draw=lambda: next(lots)
        )

    async def wait(self) -> None:
        await self.idle.wait()

    async def answer(self, sequences: Sequence[Encoded], engine: Engine) -> NDArray[Any]:
        assert engine is self.dial.dense
        self.asked.append(len(sequences))
        if self.error:
            raise self.error
        return np.zeros((len(sequences), 2), dtype=np.float32)

    def offer(self, engine: Engine, texts: int = 1) -> None:
        self.shadow.offer(engine, [sequence(1, 2)] * texts, np.zeros((texts, 2), dtype=np.float32))

    def dropped(self, reason: str) -> float | None:
        return self.metrics.registry.get_sample_value("sparsedial_shadow_dropped_total", {"reason": reason})


@pytest.fixture(scope="module")
def engines(tiny_model_dir: Path) -> dict[str, Engine]:
    base = load_base_model(tiny_model_dir)
    return {name: engine_of(base, name, sparsity) for name, sparsity in (("dense", 0.0), ("half", 0.5))}


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_nothing_is_answered_before_the_replica_is_idle(engines: dict[str, Engine]) -> None:
    bench = Bench(engines)
    await bench.shelf.keep_resident(("dense", "half"))
    bench.shadow.start()
    bench.offer(engines["half"], texts=3)
    await settle()
    assert bench.asked == []
    bench.idle.set()
    await settle()
    assert bench.asked == [3]
    (tally,) = bench.book.read()
    assert (tally.variant_id, tally.texts, tally.agreed) == ("half", 3, 3)
    value = bench.metrics.registry.get_sample_value
    assert value("sparsedial_shadow_texts_total", {"sparsity": "0.5", "outcome": "agreed"}) == 3
    await bench.shadow.stop()


async def test_the_share_that_is_sampled_is_the_policys(engines: dict[str, Engine]) -> None:
    bench = Bench(engines, draws=[0.49, 0.5, 0.51, 0.0, 0.0])
    await bench.shelf.keep_resident(("dense",))
    bench.idle.set()
    bench.shadow.start()
    for _ in range(4):
        bench.offer(engines["half"])
    await settle()
    assert len(bench.asked) == 2
    bench.dial.heed(Policy(accuracy_floor=0.0, shadow_fraction=0.0))
    bench.offer(engines["half"])
    await settle()
    assert len(bench.asked) == 2
    await bench.shadow.stop()


async def test_what_is_on_trial_is_always_compared_unless_nothing_is(engines: dict[str, Engine]) -> None:
    bench = Bench(engines, draws=[0.9] * 4)
    await bench.shelf.keep_resident(("dense",))
    bench.idle.set()
    bench.shadow.start()
    for trial, compared, shadow_fraction in ((None, 0, 0.5), ("half", 1, 0.5), ("half", 1, 0.0), ("other", 1, 0.5)):
        bench.dial.heed(Policy(accuracy_floor=0.0, shadow_fraction=shadow_fraction))
        bench.dial.try_out(None if trial is None else Trial(variant_id=trial, fraction=0.1))
        bench.offer(engines["half"])
        await settle()
        assert len(bench.asked) == compared
    await bench.shadow.stop()


async def test_the_dense_model_is_not_compared_with_itself_nor_anything_without_it(engines: dict[str, Engine]) -> None:
    bench = Bench(engines)
    bench.idle.set()
    bench.shadow.start()
    bench.offer(engines["half"])
    await bench.shelf.keep_resident(("dense",))
    bench.offer(engines["dense"])
    await settle()
    assert bench.asked == []
    await bench.shadow.stop()


async def test_samples_are_bounded_in_number_and_in_texts_and_the_oldest_go(engines: dict[str, Engine]) -> None:
    bench = Bench(engines)
    await bench.shelf.keep_resident(("dense",))
    bench.offer(engines["half"], texts=MOST_TEXTS + 5)
    for _ in range(MOST_WAITING + 1):
        bench.offer(engines["half"])
    assert bench.dropped("busy") == 2
    bench.idle.set()
    bench.shadow.start()
    await settle()
    await settle()
    assert bench.asked[:3] == [1, 1, 1]
    bench.offer(engines["half"], texts=MOST_TEXTS + 5)
    for _ in range(10):
        await settle()
    assert bench.asked[-1] == MOST_TEXTS
    await bench.shadow.stop()


async def test_a_shadow_answer_that_fails_costs_one_sample(engines: dict[str, Engine]) -> None:
    bench = Bench(engines)
    await bench.shelf.keep_resident(("dense",))
    bench.idle.set()
    bench.shadow.start()
    bench.error = RuntimeError("no kernel")
    bench.offer(engines["half"])
    await settle()
    bench.error = None
    bench.offer(engines["half"])
    await settle()
    assert (bench.dropped("failed"), bench.book.read()[0].texts) == (1, 1)
    await bench.shadow.stop()


async def test_a_runtime_compares_what_it_answered_with_its_dense_model(
    engines: dict[str, Engine], tiny_model_dir: Path
) -> None:
    shelf = EngineShelf(lambda variant_id: engines[variant_id], Live(1, engines["half"]))
    await shelf.keep_resident(("dense", "half"))
    runtime = InferenceRuntime(
        shelf, TextTokenizer.load(tiny_model_dir), ReplicaMetrics("1"), Settings(), replica_id="r1"
    )
    runtime.dial.heed(Policy(accuracy_floor=0.0, shadow_fraction=1.0))
    runtime.start()
    await runtime.classify(query("good", "the film was bad"))
    await runtime.classify(query("good", wish=Wish(sparsity=0.0)))
    async with asyncio.timeout(30):
        while not any(tally.texts for tally in runtime.tallies):
            await asyncio.sleep(0.01)
    seen = {tally.variant_id: tally for tally in runtime.tallies}
    assert (seen["half"].texts, seen["half"].answered) == (2, 1)
    assert (seen["dense"].texts, seen["dense"].answered) == (0, 1)
    await runtime.stop()
