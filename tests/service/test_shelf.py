import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import service.shelf
from pruning.encoder import BaseModel
from pruning.errors import StoreError
from pruning.variants import VariantStore
from service.engine import Engine, Live, NonFiniteLogits
from service.schedule import Lane
from service.shelf import EngineShelf
from service.torch_engine import SharedBase, TorchEngine
from tests.service.inference_parts import CPU, engine_of, put_variant, sequences


class Loader:
    """Makes engines; remembers which and where; refuses the variant ``bad``."""

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self.loaded: list[str] = []
        self.threads: set[str] = set()
        self.cores: set[int] = set()

    def __call__(self, variant_id: str) -> Engine:
        self.threads.add(threading.current_thread().name)
        self.cores.add(torch.get_num_threads())
        if variant_id == "bad":
            raise StoreError("no variant bad")
        self.loaded.append(variant_id)
        return engine_of(self.base, variant_id)


@pytest.fixture
def loader(base: BaseModel) -> Loader:
    return Loader(base)


@pytest.fixture
async def shelf(base: BaseModel, loader: Loader) -> AsyncIterator[EngineShelf]:
    made = EngineShelf(loader, Live(1, engine_of(base, "first")))
    yield made
    made.close()


def live_of(shelf: EngineShelf) -> tuple[int, str]:
    return shelf.live.generation, shelf.live.engine.manifest.variant_id


async def test_engines_are_loaded_on_one_core_beside_the_engine_that_answers(
    shelf: EngineShelf, loader: Loader
) -> None:
    cores = torch.get_num_threads()
    torch.set_num_threads(2)  # what a thread that never says otherwise would take
    await shelf.stage("second")
    torch.set_num_threads(cores)
    assert loader.cores == {1}


async def test_staging_leaves_the_live_engine_and_commit_replaces_it(shelf: EngineShelf, loader: Loader) -> None:
    await shelf.stage("second")
    assert live_of(shelf) == (1, "first")
    shelf.commit(2, "second")
    assert live_of(shelf) == (2, "second")
    assert loader.threads == {"engine-loader_0"}


async def test_a_failed_stage_leaves_everything_as_it_was(shelf: EngineShelf) -> None:
    with pytest.raises(StoreError):
        await shelf.stage("bad")
    assert live_of(shelf) == (1, "first")
    assert set(shelf.loaded) == {"first"}


async def test_the_previous_variant_stays_loaded_for_a_rollback(shelf: EngineShelf, loader: Loader) -> None:
    await shelf.stage("second")
    shelf.commit(2, "second")
    shelf.commit(3, "first")
    assert live_of(shelf) == (3, "first")
    assert loader.loaded == ["second"]
    assert set(shelf.loaded) == {"first", "second"}


async def test_only_the_last_previous_is_kept(shelf: EngineShelf) -> None:
    for generation, variant in enumerate(("second", "third"), start=2):
        await shelf.stage(variant)
        shelf.commit(generation, variant)
    assert set(shelf.loaded) == {"second", "third"}


async def test_committing_what_is_not_loaded_raises_and_changes_nothing(shelf: EngineShelf) -> None:
    with pytest.raises(KeyError):
        shelf.commit(2, "unknown")
    assert live_of(shelf) == (1, "first")


async def test_the_same_commit_twice_is_one(shelf: EngineShelf) -> None:
    await shelf.stage("second")
    shelf.commit(2, "second")
    shelf.commit(2, "second")
    assert live_of(shelf) == (2, "second")
    assert set(shelf.loaded) == {"first", "second"}


async def test_a_dropped_stage_is_forgotten_unless_it_is_resident(shelf: EngineShelf) -> None:
    await shelf.stage("second")
    assert shelf.drop_staged()
    assert not shelf.drop_staged()
    assert set(shelf.loaded) == {"first"}
    await shelf.keep_resident(("second",))
    await shelf.stage("second")
    shelf.drop_staged()
    assert set(shelf.loaded) == {"first", "second"}


async def test_the_ladder_is_loaded_once_and_what_left_it_is_let_go(shelf: EngineShelf, loader: Loader) -> None:
    await shelf.keep_resident(("first", "second", "third"))
    await shelf.keep_resident(("first", "third", "fourth"))
    await shelf.stage("third")
    assert loader.loaded == ["second", "third", "fourth"]
    assert set(shelf.loaded) == {"first", "third", "fourth"}


async def test_a_rung_that_cannot_be_loaded_keeps_no_other_from_it(shelf: EngineShelf) -> None:
    with pytest.raises(ExceptionGroup) as failed:
        await shelf.keep_resident(("bad", "second"))
    assert [str(error) for error in failed.value.exceptions] == ["no variant bad"]
    assert set(shelf.loaded) == {"first", "second"}


async def test_an_engine_that_is_let_go_is_freed_beside_the_event_loop(
    shelf: EngineShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.shelf, "LET_GO_DELAY_S", 0.01)
    freed_in: list[threading.Thread] = []
    for generation, variant in enumerate(("second", "third", "fourth"), start=2):
        await shelf.stage(variant)
        if variant == "second":
            model = shelf.loaded[variant].model
            weakref.finalize(model, lambda: freed_in.append(threading.current_thread()))
            del model
        shelf.commit(generation, variant)
    async with asyncio.timeout(10):
        while not freed_in:
            await asyncio.sleep(0.001)
    assert freed_in[0] is not threading.current_thread()


async def test_a_dropped_engine_in_a_frozen_cycle_gives_its_memory_back(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.shelf, "LET_GO_DELAY_S", 0.0)
    engine = engine_of(base, "cyclic")
    engine.model.me = engine.model
    freed = asyncio.Event()
    loop = asyncio.get_running_loop()
    weakref.finalize(engine.model, loop.call_soon_threadsafe, freed.set)
    shelf = EngineShelf(lambda variant_id: engine_of(base, variant_id), Live(1, engine))
    del engine
    gc.collect()
    gc.freeze()
    try:
        for generation, variant in enumerate(("second", "third"), start=2):
            await shelf.stage(variant)
            shelf.commit(generation, variant)
        async with asyncio.timeout(60):
            await freed.wait()
    finally:
        shelf.close()
        gc.unfreeze()


CUDA = pytest.param(
    torch.device("cuda"),
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    id="cuda",
)


@pytest.mark.parametrize("device", [pytest.param(CPU, id="cpu"), CUDA])
async def test_variants_from_the_store_are_swapped_on_their_device(
    base: BaseModel, tmp_path: Path, device: torch.device
) -> None:
    store, shared = VariantStore(tmp_path), SharedBase(base, device)
    sparsities = {"0" * 16: 0.0, "a" * 16: 0.25, "b" * 16: 0.5}
    for variant_id, sparsity in sparsities.items():
        put_variant(base, store, variant_id, sparsity)

    def load(variant_id: str) -> Engine:
        engine = TorchEngine.load(shared, store, variant_id)
        engine.warm_up()
        return engine

    batch = sequences([4, 9, 48], base.shape.vocabulary)
    first, second, third = sparsities
    shelf = EngineShelf(load, Live(1, load(first)))
    try:
        words = shelf.live.engine.model.word.weight
        await shelf.keep_resident((first, third))
        for generation, variant_id in enumerate((second, third, first, second), start=2):
            await shelf.stage(variant_id)
            shelf.commit(generation, variant_id)
            engine = shelf.live.engine
            assert live_of(shelf) == (generation, variant_id)
            assert {parameter.device.type for parameter in engine.model.parameters()} == {device.type}
            assert engine.model.word.weight.data_ptr() == words.data_ptr()
            expected = engine_of(base, sparsity=sparsities[variant_id]).predict(batch)
            torch.testing.assert_close(engine.predict(batch), expected, atol=1e-3, rtol=0)
        assert set(shelf.loaded) == {first, second, third}
    finally:
        shelf.close()


class Rehearsed:
    """Engines that remember on what they rehearsed and in which thread; ``bad`` fails."""

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self.batches: list[tuple[str, Lane, tuple[int, ...]]] = []
        self.threads: set[str] = set()

    def __call__(self, variant_id: str) -> Engine:
        outer = self

        class Remembering(TorchEngine):
            def rehearse(self, lane: Lane, lengths: Sequence[int]) -> None:
                outer.threads.add(threading.current_thread().name)
                outer.batches.append((variant_id, lane, tuple(lengths)))
                if variant_id == "bad":
                    raise NonFiniteLogits("not finite")

        made = engine_of(self.base, variant_id)
        return Remembering(**{field.name: getattr(made, field.name) for field in fields(made)})


@pytest.fixture
async def rehearsed(base: BaseModel) -> AsyncIterator[tuple[EngineShelf, Rehearsed]]:
    loader = Rehearsed(base)
    made = EngineShelf(loader, Live(1, loader("first")))
    for lengths in ((3,), (5, 5)):
        made.rehearsals.ran(made.live.engine, Lane.NARROW, lengths)
    yield made, loader
    made.close()


async def test_a_staged_variant_has_met_what_traffic_brings_once(rehearsed: tuple[EngineShelf, Rehearsed]) -> None:
    shelf, loader = rehearsed
    await shelf.stage("second")
    assert loader.batches == [("second", Lane.NARROW, (3,)), ("second", Lane.NARROW, (5, 5))]
    assert loader.threads == {"engine-loader_0"}
    await shelf.stage("second")
    assert len(loader.batches) == 2
    with pytest.raises(NonFiniteLogits):
        await shelf.stage("bad")


async def test_rehearsals_keep_no_variant_waiting_for_long(
    rehearsed: tuple[EngineShelf, Rehearsed], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, loader = rehearsed
    monkeypatch.setattr(service.shelf, "REHEARSAL_S", 0.0)
    await shelf.stage("second")
    assert loader.batches == []


async def test_what_is_loaded_rehearses_in_the_background_and_a_failure_stops_nothing(
    rehearsed: tuple[EngineShelf, Rehearsed], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, loader = rehearsed
    monkeypatch.setattr(service.shelf, "BETWEEN_REHEARSALS_S", 0.0)
    await shelf.keep_resident(("bad", "good"))
    shelf.start()
    async with asyncio.timeout(10):
        while len(loader.batches) < 4:
            await asyncio.sleep(0.001)
    assert set(loader.batches) == {
        (name, Lane.NARROW, lengths) for name in ("bad", "good") for lengths in ((3,), (5, 5))
    }
