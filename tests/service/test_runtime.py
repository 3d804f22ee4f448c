import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from pruning.encoder import BaseModel
from pruning.errors import StoreError
from pruning.tokenization import Direction, Text, TextTokenizer
from service.classification import Ranking
from service.deadlines import Deadline
from service.engine import Engine, Live
from service.errors import DeadlineExceeded, InferenceFailed, Invalid, NotReady, TooLarge
from service.internal_pages import InternalPages
from service.levels import Wish
from service.metrics import ReplicaMetrics
from service.policy import Policy
from service.protocol import Door, EngineHolder, Peer
from service.runtime import InferenceRuntime
from service.schemas import Query
from service.settings import Settings
from service.shelf import EngineShelf
from tests.service.inference_parts import CARD, breaking_on, engine_of, runtime_of


def query(*texts: Text, **changes: Any) -> Query:
    defaults = {"nested": True, "truncate": True, "direction": Direction.RIGHT, "ranking": Ranking()}
    return Query(texts=list(texts), **{**defaults, **changes})


@asynccontextmanager
async def running(engine: Engine, model_dir: Path, settings: Settings | None = None) -> AsyncIterator[InferenceRuntime]:
    runtime = runtime_of(engine, model_dir, settings)
    runtime.start()
    yield runtime
    await runtime.stop()


async def test_an_answer_holds_scores_variant_and_times(base: BaseModel, tiny_model_dir: Path) -> None:
    async with running(engine_of(base, "a" * 16, 0.5), tiny_model_dir) as runtime:
        answer = await runtime.classify(query("the film was good", ("we liked", "the food")))
    (first, second) = orjson.loads(answer.body)
    assert {entry["label"] for entry in first} == {"negative", "positive"}
    assert sum(entry["score"] for entry in second) == pytest.approx(1.0)
    assert answer.headers["x-generation"] == "1"
    assert answer.headers["x-variant"] == "a" * 16
    assert answer.headers["x-sparsity"] == "0.5000"
    assert answer.headers["x-truncated"] == "0"
    assert answer.headers["x-compute-tokens"] == str(6 + 7)
    times = {name: float(answer.headers[f"x-{name}-time"]) for name in ("tokenization", "queue", "inference", "total")}
    assert times["total"] >= times["tokenization"] + times["queue"] + times["inference"] - 0.002


async def test_a_request_whose_time_is_up_is_computed_by_no_batch(base: BaseModel, tiny_model_dir: Path) -> None:
    computed: list[int] = []
    engine = engine_of(base)
    engine.model.register_forward_pre_hook(lambda module, inputs: computed.append(inputs[0].num_sequences))
    async with running(engine, tiny_model_dir) as runtime:
        past = Deadline(at=asyncio.get_running_loop().time() - 1, limit_s=0.001, wanted=True)
        with pytest.raises(DeadlineExceeded, match=r"the 0\.001 s of x-deadline-ms"):
            await runtime.classify(query("good"), past)
        await runtime.classify(query("good"))
        (tally,) = runtime.tallies
    assert computed == [1]
    assert (tally.begun, tally.answered, tally.failed, tally.timed_out) == (2, 1, 0, 1)


@pytest.mark.parametrize("threads", [1, 2])
async def test_a_lone_request_is_computed_on_all_the_cores_that_there_are(
    base: BaseModel, tiny_model_dir: Path, threads: int
) -> None:
    cores: list[int] = []
    engine = engine_of(base)
    engine.model.register_forward_pre_hook(lambda module, inputs: cores.append(torch.get_num_threads()))
    runtime = runtime_of(engine, tiny_model_dir, threads=threads)
    runtime.start()
    await runtime.classify(query("good"))
    await runtime.stop()
    assert cores == [threads]


async def test_requests_for_every_core_are_computed_side_by_side_on_one_core_each(
    base: BaseModel, tiny_model_dir: Path
) -> None:
    together = threading.Barrier(2, timeout=30)
    cores: list[int] = []

    def meet(module: torch.nn.Module, inputs: object) -> None:
        together.wait()
        cores.append(torch.get_num_threads())

    engine = engine_of(base)
    engine.model.register_forward_pre_hook(meet)
    runtime = runtime_of(engine, tiny_model_dir, threads=2)
    runtime.start()
    work = query(*["good " * 60] * 6)
    await asyncio.gather(runtime.classify(work), runtime.classify(work))
    await runtime.stop()
    assert cores == [1, 1]


async def test_a_text_is_answered_alike_alone_and_in_a_batch(base: BaseModel, tiny_model_dir: Path) -> None:
    texts = ["good", "the film was not very good", "bad food", "we hated it"]
    async with running(engine_of(base), tiny_model_dir) as runtime:
        together = orjson.loads((await runtime.classify(query(*texts))).body)
        alone = [orjson.loads((await runtime.classify(query(text, nested=False))).body) for text in texts]
    for one, other in zip(together, alone, strict=True):
        assert [entry["label"] for entry in one] == [entry["label"] for entry in other]
        assert [entry["score"] for entry in one] == pytest.approx([entry["score"] for entry in other], abs=1e-5)


@pytest.mark.parametrize("text", ["good " * 60, "good " * 5000])
async def test_long_texts_are_cut_and_the_answer_says_so(base: BaseModel, tiny_model_dir: Path, text: str) -> None:
    async with running(engine_of(base), tiny_model_dir) as runtime:
        answer = await runtime.classify(query(text, "good"))
        with pytest.raises(Invalid, match="Text 0 has"):
            await runtime.classify(query(text, "good", truncate=False))
        assert 'sparsedial_truncated_texts_total{replica="r1"} 1.0' in await runtime.metrics_page()
    assert answer.headers["x-truncated"] == "1"
    assert answer.headers["x-compute-tokens"] == str(48 + 3)


@pytest.mark.parametrize("nan", [True, False])
async def test_a_request_that_breaks_the_engine_fails_alone(base: BaseModel, tiny_model_dir: Path, nan: bool) -> None:
    async with running(breaking_on(base, "good", nan=nan), tiny_model_dir) as runtime:
        results = await asyncio.gather(
            *(runtime.classify(query(text)) for text in ("bad", "bad food", "good", "dull")), return_exceptions=True
        )
    assert [isinstance(result, InferenceFailed) for result in results] == [False, False, True, False]


async def test_a_request_larger_than_the_queue_is_too_large(base: BaseModel, tiny_model_dir: Path) -> None:
    async with running(engine_of(base), tiny_model_dir, Settings(max_queue_tokens=20)) as runtime:
        with pytest.raises(TooLarge, match="30 tokens; at most 20"):
            await runtime.classify(query(*["good"] * 10))


async def test_no_answer_in_time_is_a_deadline_exceeded_and_frees_the_queue(
    base: BaseModel, tiny_model_dir: Path
) -> None:
    runtime = runtime_of(engine_of(base), tiny_model_dir, Settings(request_timeout_s=0.01))
    with pytest.raises(DeadlineExceeded, match=r"0\.01 s"):
        await runtime.classify(query("good"))
    assert 'sparsedial_queue_tokens{replica="r1"} 0.0' in await runtime.metrics_page()
    await runtime.stop()


async def test_readiness_follows_start_and_drain(base: BaseModel, tiny_model_dir: Path) -> None:
    runtime = runtime_of(engine_of(base), tiny_model_dir)
    with pytest.raises(NotReady):
        runtime.check_ready()
    runtime.start()
    runtime.check_ready()
    runtime.start_draining()
    with pytest.raises(NotReady) as refused:
        runtime.check_ready()
    assert refused.value.retry_after_s == 1
    await runtime.stop()
    assert not runtime.serving


async def test_draining_answers_what_is_in_flight(base: BaseModel, tiny_model_dir: Path) -> None:
    runtime = runtime_of(engine_of(base), tiny_model_dir)
    runtime.start()

    async def ask() -> None:
        with runtime.track("/"):
            await runtime.classify(query("good"))

    asked = [asyncio.create_task(ask()) for _ in range(20)]
    await asyncio.sleep(0)
    runtime.start_draining()
    assert runtime.inflight == 20
    await runtime.drained()
    assert [task.exception() for task in asked] == [None] * 20
    await runtime.stop()


async def test_a_swap_under_requests_loses_none_and_never_mixes_engines(base: BaseModel, tiny_model_dir: Path) -> None:
    engines = {f"{level}": engine_of(base, f"{level}", level / 10) for level in range(0, 8)}
    settings = Settings()
    runtime = InferenceRuntime(
        EngineShelf(engines.__getitem__, Live(1, engines["0"])),
        TextTokenizer.load(tiny_model_dir),
        ReplicaMetrics("1.0"),
        settings,
        replica_id="r1",
    )
    runtime.start()
    expected = {
        name: [
            round(value, 5)
            for value in engine.predict(TextTokenizer.load(tiny_model_dir).encode(["good"], max_length=48))[0].tolist()
        ]
        for name, engine in engines.items()
    }
    raw = Ranking(activation="none")  # type: ignore[arg-type]
    done = False
    generations: list[int] = []

    async def ask() -> None:
        while not done:
            answer = await runtime.classify(query("good", ranking=raw))
            scores = {entry["label"]: entry["score"] for entry in orjson.loads(answer.body)[0]}
            wanted = expected[answer.headers["x-variant"]]
            assert [scores["negative"], scores["positive"]] == pytest.approx(wanted, abs=1e-4)
            assert int(answer.headers["x-generation"]) % 8 == (int(answer.headers["x-variant"]) + 1) % 8
            generations.append(int(answer.headers["x-generation"]))

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    for generation in range(2, 34):
        variant = str((generation - 1) % 8)
        await runtime.dial.stage(variant)
        runtime.dial.commit(generation, variant)
        await asyncio.sleep(0.001)
    done = True
    await asyncio.gather(*asking)
    assert max(generations) > 1
    page = await runtime.metrics_page()
    assert 'sparsedial_replica_swaps_total{replica="r1",outcome="committed"} 32.0' in page
    assert 'sparsedial_generation{replica="r1"} 33.0' in page
    await runtime.stop()


async def test_failed_and_dropped_stages_are_counted(base: BaseModel, tiny_model_dir: Path) -> None:
    def load(variant_id: str) -> Engine:
        if variant_id == "bad":
            raise StoreError("no variant bad")
        return engine_of(base, variant_id)

    runtime = InferenceRuntime(
        EngineShelf(load, Live(1, engine_of(base, "first"))),
        TextTokenizer.load(tiny_model_dir),
        ReplicaMetrics("1.0"),
        Settings(),
        replica_id="r1",
    )
    holder: EngineHolder = runtime.dial
    with pytest.raises(StoreError):
        await holder.stage("bad")
    await holder.stage("second")
    holder.drop_staged()
    holder.drop_staged()
    page = await runtime.metrics_page()
    assert 'sparsedial_replica_swaps_total{replica="r1",outcome="failed"} 1.0' in page
    assert 'sparsedial_replica_swaps_total{replica="r1",outcome="dropped"} 1.0' in page
    assert (holder.generation, holder.variant_id) == (1, "first")
    door: Door = runtime
    assert (door.inflight, door.tallies) == (0, ())
    await runtime.stop()


async def test_the_page_merges_peers_and_counts_those_that_do_not_answer(base: BaseModel, tiny_model_dir: Path) -> None:
    other = ReplicaMetrics(CARD.version)
    other.queue_limit_tokens.set(55)
    server = InternalPages(other.registry, "127.0.0.1")
    peers = [
        Peer(replica_id="r1", metrics_address="127.0.0.1:1"),
        Peer(replica_id="r2", metrics_address=server.address),
        Peer(replica_id="gone", metrics_address="127.0.0.1:1"),
    ]
    runtime = runtime_of(engine_of(base), tiny_model_dir, peers=lambda: peers)
    page = await runtime.metrics_page()
    server.close()
    assert 'sparsedial_queue_limit_tokens{replica="r1"} 32768.0' in page
    assert 'sparsedial_queue_limit_tokens{replica="r2"} 55.0' in page
    assert 'sparsedial_metrics_peer_failures_total{replica="r1"} 1.0' in page
    assert "gone" not in page
    await runtime.stop()


async def test_a_request_that_names_a_level_is_answered_by_it_and_bounds_hold(
    base: BaseModel, tiny_model_dir: Path
) -> None:
    levels = {name: engine_of(base, name * 16, sparsity) for name, sparsity in (("a", 0.0), ("b", 0.5))}
    shelf = EngineShelf(lambda variant_id: levels[variant_id], Live(7, levels["a"]))
    await shelf.keep_resident(("a", "b"))
    runtime = InferenceRuntime(
        shelf, TextTokenizer.load(tiny_model_dir), ReplicaMetrics("1"), Settings(), replica_id="r1"
    )
    runtime.start()
    answer = await runtime.classify(query("good", wish=Wish(sparsity=0.5)))
    assert (answer.headers["x-generation"], answer.headers["x-variant"]) == ("7", "b" * 16)
    assert (await runtime.classify(query("good"))).headers["x-variant"] == "a" * 16
    runtime.dial.heed(Policy(accuracy_floor=0.0, max_sparsity=0.4))
    with pytest.raises(Invalid, match="outside the bounds"):
        await runtime.classify(query("good", wish=Wish(sparsity=0.5)))
    await runtime.stop()


async def test_answers_and_failures_are_counted_for_the_variant_that_gave_them(
    base: BaseModel, tiny_model_dir: Path
) -> None:
    async with running(breaking_on(base, "bad", nan=False), tiny_model_dir) as runtime:
        await runtime.classify(query("good"))
        with pytest.raises(InferenceFailed):
            await runtime.classify(query("bad"))
        (tally,) = runtime.tallies
    assert (tally.variant_id, tally.answered, tally.failed, sum(tally.durations)) == ("0" * 16, 1, 1, 1)
