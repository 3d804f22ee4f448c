import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import service.engine_choice
from pruning.encoder import BaseModel
from pruning.errors import PrecisionError
from pruning.slim.packed import TokenSequence
from pruning.spec import Precision
from pruning.variants import VariantStore
from service.engine import Live, Reading
from service.engine_choice import MARGIN, EngineLoader, chosen, read_in_turn, require_engine
from service.engine_errors import EngineError
from service.settings import EngineName, Settings
from service.shelf import EngineShelf
from service.torch_engine import SharedBase
from tests.service.inference_parts import CPU, engine_of, layers_of, manifest_of, put_variant, sequences

pytest.importorskip("openvino", reason="the extra openvino is not installed")

SLOW, FAST = Reading(single_ms=2.0, batch_ms=20.0), Reading(single_ms=1.0, batch_ms=10.0)


@pytest.fixture
def store(base: BaseModel, tmp_path: Path) -> VariantStore:
    """Variants ``aa..`` dense, ``bb..`` cut, ``cc..`` whose matrices do not fit each other."""
    store = VariantStore(tmp_path)
    put_variant(base, store, "a" * 16, 0.0)
    put_variant(base, store, "b" * 16, 0.5)
    layers = layers_of(base, 0.0)
    layers["layers.0.ffn_out.weight"] = layers["layers.0.ffn_out.weight"][:, 1:]
    store.put(layers, manifest_of(base, layers, "c" * 16, 0.0))
    return store


def loader(base: BaseModel, store: VariantStore, engine: EngineName, device: torch.device = CPU) -> EngineLoader:
    return EngineLoader(SharedBase(base, device), store, Settings(engine=engine), threads=2)


def measured(monkeypatch: pytest.MonkeyPatch, **readings: Reading) -> list[list[str]]:
    """Let every measurement come out so; return the list that says which engines were measured."""
    calls: list[list[str]] = []

    def read(engines: dict[str, Any], vocabulary: int) -> dict[str, Reading]:
        calls.append(list(engines))
        return readings

    monkeypatch.setattr(service.engine_choice, "read_in_turn", read)
    return calls


@pytest.mark.parametrize("name", [EngineName.TORCH, EngineName.OPENVINO])
def test_the_engine_that_is_named_answers_and_nothing_is_measured(
    base: BaseModel, store: VariantStore, name: EngineName, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = measured(monkeypatch, torch=FAST, openvino=FAST)
    engine = loader(base, store, name)("b" * 16)
    assert (engine.name, engine.readings, calls) == (name, None, [])
    batch = sequences([4, 9], base.shape.vocabulary)
    torch.testing.assert_close(engine.predict(batch), engine_of(base, sparsity=0.5).predict(batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("readings", "chosen"),
    [({"torch": SLOW, "openvino": FAST}, "openvino"), ({"torch": FAST, "openvino": SLOW}, "torch")],
)
def test_auto_takes_the_faster_one_and_tells_both_readings(
    base: BaseModel,
    store: VariantStore,
    readings: dict[str, Reading],
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    measured(monkeypatch, **readings)
    with caplog.at_level(logging.INFO, "service.engine_choice"):
        engine = loader(base, store, EngineName.AUTO)("a" * 16)
    assert (engine.name, engine.readings) == (chosen, readings)
    assert f"precision=float32 engine={chosen}" in caplog.text
    assert "1.00 ms alone, 10.00 ms a batch" in caplog.text and "2.00 ms alone, 20.00 ms a batch" in caplog.text


def test_a_precision_is_measured_once(base: BaseModel, store: VariantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put_variant(base, store, "d" * 16, 0.5, Precision.BFLOAT16)
    calls = measured(monkeypatch, torch=SLOW, openvino=FAST)
    load = loader(base, store, EngineName.AUTO)
    engines = [load(letter * 16) for letter in "abd"]
    assert {engine.name for engine in engines} == {"openvino"}
    assert calls == [["torch", "openvino"]] * 2


@pytest.mark.parametrize(
    ("margin", "engine"), [(MARGIN + 0.01, "torch"), (MARGIN - 0.01, "openvino"), (0.5, "openvino")]
)
def test_torch_is_taken_where_it_is_faster_by_the_margin(margin: float, engine: str) -> None:
    even_mean = Reading(single_ms=SLOW.single_ms * 3 / margin, batch_ms=SLOW.batch_ms / 3 / margin)
    assert chosen({"torch": even_mean, "openvino": SLOW}) == engine


def test_readings_are_medians_of_what_the_thread_computed_in_turn(base: BaseModel) -> None:
    order: list[tuple[str, int]] = []

    class Recording:
        def __init__(self, name: str) -> None:
            self.name = name

        def predict(self, batch: Sequence[TokenSequence]) -> None:
            order.append((self.name, len(batch)))

    readings = read_in_turn({name: Recording(name) for name in ("one", "other")}, 100)  # type: ignore[misc]
    assert order[:4] == [("one", 1), ("one", 10), ("other", 1), ("other", 10)] and order[4:8] == order[:4]
    assert readings.keys() == {"one", "other"}
    assert all(reading.single_ms >= 0 for reading in readings.values())


def test_what_openvino_does_not_compile_auto_leaves_to_torch_with_a_warning(
    base: BaseModel, store: VariantStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from service import openvino_engine

    measured(monkeypatch, torch=SLOW, openvino=FAST)
    load = loader(base, store, EngineName.AUTO)
    assert load("a" * 16).name == "openvino"

    def refuse(*arguments: object) -> None:
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(openvino_engine, "OpenVinoBert", refuse)
    assert load("b" * 16).name == "torch"
    assert loader(base, store, EngineName.AUTO)("b" * 16).name == "torch"  # while it measures, too
    assert caplog.text.count("no kernel for this") == 2


async def test_a_level_that_does_not_compile_is_refused_and_the_live_one_goes_on(
    base: BaseModel, store: VariantStore
) -> None:
    load = loader(base, store, EngineName.OPENVINO)
    live = load("a" * 16)
    shelf = EngineShelf(load, Live(1, live))
    try:
        with pytest.raises(EngineError, match=r"does not compile variant c{16}"):
            await shelf.stage("c" * 16)
        assert shelf.live == Live(1, live) and set(shelf.loaded) == {"a" * 16}
        await shelf.stage("b" * 16)
        shelf.commit(2, "b" * 16)
        assert shelf.live.engine.name == "openvino"
    finally:
        shelf.close()


OF_TORCH: Any = SimpleNamespace(manifest=SimpleNamespace(probe_logits=[]))
"""Stands for an engine that torch computes."""


def test_int8_is_torchs_alone(base: BaseModel, store: VariantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put_variant(base, store, "d" * 16, 0.0, Precision.INT8)
    with pytest.raises(PrecisionError, match="int8, and the engine openvino"):
        loader(base, store, EngineName.OPENVINO)("d" * 16)
    calls = measured(monkeypatch, torch=SLOW, openvino=FAST)
    monkeypatch.setattr(EngineLoader, "_torch", lambda self, variant_id: OF_TORCH)
    assert loader(base, store, EngineName.AUTO)("d" * 16) is OF_TORCH
    assert calls == []


def test_auto_is_torch_on_gpus_and_where_openvino_is_not_installed(
    base: BaseModel, store: VariantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = measured(monkeypatch, torch=SLOW, openvino=FAST)
    monkeypatch.setattr(EngineLoader, "_torch", lambda self, variant_id: OF_TORCH)
    on_gpu = loader(base, store, EngineName.AUTO, torch.device("cuda"))
    monkeypatch.setattr(service.engine_choice, "openvino_installed", lambda: False)
    for load in (on_gpu, loader(base, store, EngineName.AUTO)):
        assert load("a" * 16) is OF_TORCH
    assert calls == []


def test_an_engine_that_is_not_installed_is_refused_with_its_extra(
    base: BaseModel, store: VariantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_engine(EngineName.OPENVINO)
    monkeypatch.setattr(service.engine_choice, "openvino_installed", lambda: False)
    for name in (EngineName.AUTO, EngineName.TORCH):
        require_engine(name)
    for refuse in (lambda: require_engine(EngineName.OPENVINO), lambda: loader(base, store, EngineName.OPENVINO)):
        with pytest.raises(EngineError, match=r"pip install 'sparsedial\[openvino\]'"):
            refuse()
