import gc
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pruning.architectures import ARCHITECTURES
from pruning.cost import HeadDims
from pruning.encoder import BaseModel, load_base_model
from pruning.errors import ModelError, PrecisionError, StoreError
from pruning.heads import Head
from pruning.masks.structures import StructureMask
from pruning.slim.convert import DTYPES, build_slim, in_dtype, slim_layers
from pruning.spec import Precision
from pruning.tokenization import Encoded
from pruning.variants import VariantStore
from service.compute_threads import compute_on
from service.engine import NonFiniteLogits
from service.engine_errors import EngineError
from service.schedule import Lane
from service.torch_engine import TorchEngine
from tests.pruning.parts import mask_of, with_units
from tests.pruning.zoo import write_model
from tests.service.inference_parts import CPU, engine_of, layers_of, manifest_of, put_variant, sequence, sequences

openvino_engine = pytest.importorskip("service.openvino_engine", reason="the extra openvino is not installed")
build_graph = openvino_engine.build_graph
OpenVinoBert, OpenVinoEngine = openvino_engine.OpenVinoBert, openvino_engine.OpenVinoEngine

LENGTHS = [4, 48, 9, 9, 1, 30, 17]


def pair_of(
    base: BaseModel, layers: dict[str, Tensor], precision: Precision = Precision.FLOAT32, **changes: int
) -> tuple[TorchEngine, "openvino_engine.OpenVinoEngine"]:
    """Return both engines of the same tensors."""
    layers = in_dtype(layers, DTYPES[precision])
    common = {
        "manifest": manifest_of(base, layers, "0" * 16, 0.0),
        "labels": base.labels,
        "max_length": base.max_length,
        **changes,
    }
    compiled = OpenVinoEngine(
        model=OpenVinoBert(base, layers, precision, 1),
        hidden=base.shape.hidden,
        vocabulary=base.shape.vocabulary,
        **common,
    )
    return TorchEngine(model=build_slim(base, layers), device=CPU, **common), compiled  # type: ignore[arg-type]


def emptied(base: BaseModel, heads: list[int], neurons: list[int]) -> dict[str, Tensor]:
    """Return the layers with so many heads and neurons."""
    shape = base.shape
    kept_heads = torch.stack([torch.arange(shape.num_heads) < count for count in heads])
    kept_neurons = torch.stack([torch.arange(shape.ffn) < count for count in neurons])
    return slim_layers(base, StructureMask(kept_heads, kept_neurons))


@pytest.mark.parametrize(
    ("heads", "neurons"),
    [([4, 4], [64, 64]), ([1, 2], [3, 40]), ([0, 2], [5, 0]), ([2, 0], [0, 7]), ([0, 0], [0, 0])],
    ids=["dense", "cut", "first layer without heads", "last layer without heads", "nothing left"],
)
@pytest.mark.parametrize(("precision", "tolerance"), [(Precision.FLOAT32, 1e-4), (Precision.BFLOAT16, 0.05)])
def test_both_engines_give_the_same_logits(
    base: BaseModel, heads: list[int], neurons: list[int], precision: Precision, tolerance: float
) -> None:
    torch_engine, compiled = pair_of(base, emptied(base, heads, neurons), precision)
    batch = sequences(LENGTHS, base.shape.vocabulary)
    for given_sequences in (batch, batch[:1]):
        expected, logits = torch_engine.predict(given_sequences), compiled.predict(given_sequences)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dims", [HeadDims(2, 6), HeadDims(6, 2), HeadDims(4, 4)])
@pytest.mark.parametrize(("precision", "tolerance"), [(Precision.FLOAT32, 1e-4), (Precision.BFLOAT16, 0.05)])
def test_heads_that_lost_dimensions_are_computed_as_torch_does(
    base: BaseModel, dims: HeadDims, precision: Precision, tolerance: float
) -> None:
    mask = with_units(mask_of(base.shape, [range(3), range(2)], [range(64)] * 2), base.shape, [dims, dims])
    torch_engine, compiled = pair_of(base, slim_layers(base, mask), precision)
    batch = sequences(LENGTHS, base.shape.vocabulary)
    torch.testing.assert_close(compiled.predict(batch), torch_engine.predict(batch), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_every_activation_is_the_one_that_torch_computes(base: BaseModel, activation: str) -> None:
    torch_engine, compiled = pair_of(replace(base, activation=activation), layers_of(base, 0.0))
    batch = sequences(LENGTHS, base.shape.vocabulary)
    torch.testing.assert_close(compiled.predict(batch), torch_engine.predict(batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_is_computed_as_torch_does(tmp_path: Path, kind: str) -> None:
    base = load_base_model(write_model(tmp_path, kind))
    torch_engine, compiled = pair_of(base, emptied(base, [1, 2], [3, 40]))
    batch = sequences(LENGTHS, base.shape.vocabulary)
    torch.testing.assert_close(compiled.predict(batch), torch_engine.predict(batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", [Head.TAGS, Head.SPAN])
def test_a_head_that_reads_every_token_is_refused_naming_it_and_the_remedy(tmp_path: Path, head: Head) -> None:
    base = load_base_model(write_model(tmp_path, "electra", head))
    with pytest.raises(ModelError, match=f"there is no OpenVINO graph of a model for {head}; use the engine 'torch'"):
        build_graph(base, layers_of(base, 0.0))


def test_the_second_text_of_a_pair_is_told_from_the_first(base: BaseModel) -> None:
    torch_engine, compiled = pair_of(base, layers_of(base, 0.0))
    pair = Encoded([2, 7, 3, 8, 3], [0, 0, 0, 1, 1])
    torch.testing.assert_close(compiled.predict([pair]), torch_engine.predict([pair]), atol=1e-5, rtol=0)
    assert not torch.allclose(compiled.predict([pair]), compiled.predict([sequence(*pair.ids)]), atol=1e-4)


@pytest.fixture(scope="module")
def compiled(base: BaseModel) -> "openvino_engine.OpenVinoEngine":
    return pair_of(base, layers_of(base, 0.0))[1]


@given(lengths=st.lists(st.integers(1, 48), min_size=1, max_size=20), budget=st.integers(1, 200))
@settings(max_examples=25, deadline=None)
def test_each_sequence_gets_its_own_logits_whatever_it_is_batched_with(
    base: BaseModel, compiled: "openvino_engine.OpenVinoEngine", lengths: list[int], budget: int
) -> None:
    batch = sequences(lengths, base.shape.vocabulary)
    together = replace(compiled, max_batch_tokens=budget).predict(batch)
    alone = torch.cat([compiled.predict([one]) for one in batch])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_a_pass_keeps_within_the_token_budget_and_apart_from_much_longer_sequences(
    base: BaseModel, compiled: "openvino_engine.OpenVinoEngine"
) -> None:
    passes: list[list[int]] = []

    def counting(batch: list[Encoded]) -> Tensor:
        passes.append([len(one.ids) for one in batch])
        return torch.zeros(len(batch), 2)

    batch = sequences([2] * 60 + [48], base.shape.vocabulary)
    counted = replace(compiled, model=counting, hidden=32)
    counted.predict(batch)
    assert passes == [[2] * 60, [48]]
    passes.clear()
    replace(counted, max_batch_tokens=100).predict(batch)
    assert passes == [[2] * 50, [2] * 10, [48]]


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.BFLOAT16])
def test_a_stored_variant_answers_as_torch_does(base: BaseModel, tmp_path: Path, precision: Precision) -> None:
    store = VariantStore(tmp_path)
    manifest = put_variant(base, store, "a" * 16, 0.5, precision)
    loaded = OpenVinoEngine.load(base, store, "a" * 16, threads=2)
    loaded.warm_up()
    batch = sequences([4, 9], base.shape.vocabulary)
    expected = engine_of(base, sparsity=0.5).predict(batch)
    tolerance = 1e-5 if precision is Precision.FLOAT32 else 0.05
    torch.testing.assert_close(loaded.predict(batch), expected, atol=tolerance, rtol=tolerance)
    assert (loaded.name, loaded.device, loaded.manifest) == ("openvino", CPU, manifest)
    assert loaded.labels == ("negative", "positive") and loaded.max_length == 48


def test_int8_and_unknown_variants_are_refused_before_anything_is_compiled(base: BaseModel, tmp_path: Path) -> None:
    store = VariantStore(tmp_path)
    put_variant(base, store, "a" * 16, 0.0, Precision.INT8)
    with pytest.raises(PrecisionError, match="is int8, and the engine openvino computes float32 and bfloat16"):
        OpenVinoEngine.load(base, store, "a" * 16, threads=1)
    with pytest.raises(StoreError, match="no variant"):
        OpenVinoEngine.load(base, store, "b" * 16, threads=1)


def test_a_variant_that_does_not_compile_is_refused_in_words(base: BaseModel, tmp_path: Path) -> None:
    store = VariantStore(tmp_path)
    layers = layers_of(base, 0.0)
    layers["layers.0.ffn_out.weight"] = layers["layers.0.ffn_out.weight"][:, 1:]
    store.put(layers, manifest_of(base, layers, "a" * 16, 0.0))
    with pytest.raises(EngineError, match=r"does not compile variant a{16}.*--engine torch"):
        OpenVinoEngine.load(base, store, "a" * 16, threads=1)


def test_logits_that_are_not_finite_are_never_returned(base: BaseModel) -> None:
    layers = layers_of(base, 0.0)
    layers["layers.1.ffn_out.bias"] = torch.full_like(layers["layers.1.ffn_out.bias"], torch.nan)
    with pytest.raises(NonFiniteLogits, match="0000000000000000"):
        pair_of(base, layers)[1].warm_up()


def test_an_engine_is_freed_without_the_garbage_collector(base: BaseModel, tmp_path: Path) -> None:
    put_variant(base, VariantStore(tmp_path), "a" * 16, 0.5)
    gc.collect()
    gc.disable()
    try:
        engine = OpenVinoEngine.load(base, VariantStore(tmp_path), "a" * 16, threads=1)
        engine.warm_up()
        references = weakref.ref(engine), weakref.ref(engine.model)
        del engine
        assert [reference() for reference in references] == [None, None]
    finally:
        gc.enable()


def test_threads_that_ask_at_once_each_get_their_own_answers(base: BaseModel) -> None:
    _, compiled = pair_of(base, layers_of(base, 0.0))
    batches = [sequences([length] * 3, base.shape.vocabulary) for length in (3, 17, 40)]
    expected = [compiled.predict(batch) for batch in batches]
    with ThreadPoolExecutor(len(batches)) as threads:
        for _ in range(10):
            for logits, own in zip(threads.map(compiled.predict, batches), expected, strict=True):
                torch.testing.assert_close(logits, own)


def test_a_signal_is_survived_after_a_variant_was_let_go_in_another_thread() -> None:
    code = """
import gc, os, signal, threading
import openvino
from openvino import opset15
from pruning.spec import Precision
from service.openvino_engine import _requests

value = opset15.parameter([1])
held = [_requests(openvino.Model([opset15.relu(value)], [value]), Precision.FLOAT32, 1, streams=1)]

def let_go():
    held.clear()
    gc.collect()

thread = threading.Thread(target=let_go)
thread.start()
thread.join()
signal.signal(signal.SIGUSR1, lambda number, frame: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout) == (0, "handled\n")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How many cores each pass was asked to take, as ``wide`` or ``narrow``."""
    seen: list[str] = []
    ask = OpenVinoBert._ask

    def note(self: "openvino_engine.OpenVinoBert", idle: object, given: object) -> Tensor:
        seen.append("wide" if idle is self._wide else "narrow")
        return ask(self, idle, given)

    monkeypatch.setattr(OpenVinoBert, "_ask", note)
    return seen


def engine_of_two_cores(base: BaseModel) -> "openvino_engine.OpenVinoEngine":
    layers = layers_of(base, 0.0)
    return replace(pair_of(base, layers)[1], model=OpenVinoBert(base, layers, Precision.FLOAT32, 2))


def test_warming_up_runs_what_every_lane_will_ask(base: BaseModel, asked: list[str]) -> None:
    engine_of_two_cores(base).warm_up()
    assert asked.count("wide") == asked.count("narrow") > 0


@pytest.mark.parametrize(("cores", "expected"), [(1, "narrow"), (2, "wide")])
def test_a_pass_takes_the_cores_of_the_thread_that_asks(
    base: BaseModel, asked: list[str], cores: int, expected: str
) -> None:
    engine = engine_of_two_cores(base)
    with ThreadPoolExecutor(1, initializer=compute_on, initargs=(cores,)) as thread:
        thread.submit(engine.predict, sequences([4, 9], base.shape.vocabulary)).result()
    assert asked == [expected]


@pytest.mark.parametrize(("lane", "expected"), [(Lane.WIDE, ["wide"]), (Lane.NARROW, ["narrow", "narrow"])])
def test_a_rehearsal_runs_once_in_every_request_of_its_lane(
    base: BaseModel, asked: list[str], lane: Lane, expected: list[str]
) -> None:
    engine_of_two_cores(base).rehearse(lane, [4, 9])
    assert asked == expected
