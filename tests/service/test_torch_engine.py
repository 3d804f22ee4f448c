import contextlib
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.encoder import BaseModel
from pruning.errors import ChecksumError, DeviceMemoryError, PrecisionError, StoreError
from pruning.slim.packed import PackedBatch
from pruning.spec import Precision
from pruning.variants import WEIGHTS, VariantStore
from service.compute_threads import compute_on
from service.engine import NonFiniteLogits
from service.schedule import Lane
from service.torch_engine import SharedBase, TorchEngine
from tests.service.inference_parts import CPU, BrokenModel, engine_of, put_variant, sequence, sequences


@given(lengths=st.lists(st.integers(1, 48), min_size=1, max_size=6), budget=st.integers(1, 100))
@settings(max_examples=15, deadline=None)
def test_each_sequence_gets_its_own_logits_whatever_it_is_batched_with(
    base: BaseModel, lengths: list[int], budget: int
) -> None:
    engine = engine_of(base, max_batch_tokens=budget)
    batch = sequences(lengths, base.shape.vocabulary)
    together = engine.predict(batch)
    alone = torch.cat([engine.predict([one]) for one in batch])
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_that_answer_at_once_from_one_engine_each_get_their_own_logits(
    base: BaseModel, dtype: torch.dtype
) -> None:
    engine = engine_of(base)
    engine.model.to(dtype)
    batches = [sequences([length, length + 3, 40], base.shape.vocabulary) for length in range(1, 9)]
    one_by_one = [engine.predict(batch) for batch in batches]
    engine.model.to(dtype)  # forget what was laid out: the threads meet at the first use
    with ThreadPoolExecutor(4) as threads:
        for _ in range(5):
            for logits, expected in zip(threads.map(engine.predict, batches), one_by_one, strict=True):
                torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_a_forward_pass_stays_within_the_token_budget(base: BaseModel) -> None:
    seen: list[int] = []

    class Counting(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.inner = model

        def forward(self, batch: PackedBatch) -> torch.Tensor:
            seen.append(batch.num_tokens)
            logits: torch.Tensor = self.inner(batch)
            return logits

    engine = engine_of(base)
    engine = engine_of(base, model=Counting(engine.model), max_batch_tokens=20)
    engine.predict(sequences([5, 30, 8, 12, 3, 7], base.shape.vocabulary))
    assert seen == [15, 20, 30]


def test_a_stored_variant_answers_as_the_one_that_was_stored(base: BaseModel, tmp_path: Path) -> None:
    store = VariantStore(tmp_path)
    manifest = put_variant(base, store, "a" * 16, 0.5)
    loaded = TorchEngine.load(SharedBase(base, CPU), store, "a" * 16)
    loaded.warm_up()
    batch = sequences([4, 9], base.shape.vocabulary)
    torch.testing.assert_close(loaded.predict(batch), engine_of(base, sparsity=0.5).predict(batch))
    assert loaded.manifest == manifest
    assert loaded.labels == ("negative", "positive")
    assert loaded.max_length == 48


def test_a_damaged_or_unknown_variant_is_not_loaded(base: BaseModel, tmp_path: Path) -> None:
    store = VariantStore(tmp_path)
    put_variant(base, store, "a" * 16, 0.5)
    weights = store.folder / ("a" * 16) / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ChecksumError):
        TorchEngine.load(SharedBase(base, CPU), store, "a" * 16)
    with pytest.raises(StoreError, match="no variant"):
        TorchEngine.load(SharedBase(base, CPU), store, "b" * 16)


def test_logits_that_are_not_finite_are_never_returned(base: BaseModel) -> None:
    engine = engine_of(base, model=BrokenModel(engine_of(base).model, token=7, nan=True))
    engine.predict([sequence(2, 8, 3)])
    with pytest.raises(NonFiniteLogits, match="0000000000000000"):
        engine.predict([sequence(2, 8, 3), sequence(2, 7, 3)])
    with pytest.raises(NonFiniteLogits):
        engine_of(base, model=BrokenModel(engine_of(base).model, token=0, nan=True)).warm_up()


def test_an_engine_is_freed_without_the_garbage_collector(base: BaseModel, tmp_path: Path) -> None:
    put_variant(base, VariantStore(tmp_path), "a" * 16, 0.5)
    engine = TorchEngine.load(SharedBase(base, CPU), VariantStore(tmp_path), "a" * 16)
    engine.warm_up()
    references = weakref.ref(engine), weakref.ref(engine.model)
    del engine
    assert [reference() for reference in references] == [None, None]


def test_variants_share_what_no_cut_touches(base: BaseModel, tmp_path: Path) -> None:
    store = VariantStore(tmp_path)
    shared = SharedBase(base, CPU)
    engines = []
    for variant_id, sparsity in (("a" * 16, 0.25), ("b" * 16, 0.5)):
        put_variant(base, store, variant_id, sparsity)
        engines.append(TorchEngine.load(shared, store, variant_id))
    first, second = (engine.model.word.weight for engine in engines)
    assert first.data_ptr() == second.data_ptr()


def test_variants_of_a_precision_share_the_base_in_it(base: BaseModel, tmp_path: Path) -> None:
    store, shared = VariantStore(tmp_path), SharedBase(base, CPU)
    engines = []
    for variant_id, sparsity in (("a" * 16, 0.25), ("b" * 16, 0.5)):
        put_variant(base, store, variant_id, sparsity, Precision.BFLOAT16)
        engines.append(TorchEngine.load(shared, store, variant_id))
        engines[-1].warm_up()
    first, second = (engine.model.word.weight for engine in engines)
    assert first.dtype == torch.bfloat16 and first.data_ptr() == second.data_ptr()
    batch = sequences([4, 9, 48], base.shape.vocabulary)
    logits = engines[1].predict(batch)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, engine_of(base, sparsity=0.5).predict(batch), atol=0.05, rtol=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("precision", "tolerance"), [(Precision.FLOAT32, 1e-3), (Precision.BFLOAT16, 0.05), (Precision.FLOAT16, 0.01)]
)
def test_an_engine_on_a_gpu_answers_as_on_the_cpu(
    base: BaseModel, tmp_path: Path, precision: Precision, tolerance: float
) -> None:
    store = VariantStore(tmp_path)
    put_variant(base, store, "a" * 16, 0.5, precision)
    shared = SharedBase(base, torch.device("cuda"))
    engines = [TorchEngine.load(shared, store, "a" * 16, max_batch_tokens=256) for _ in range(2)]
    assert engines[0].graphs is not None
    engines[0].warm_up()
    batch = sequences([4, 9, 48, 1, 30, 48, 48, 48, 48, 48, 2], base.shape.vocabulary)
    logits = engines[0].predict(batch)
    assert logits.device == CPU
    torch.testing.assert_close(logits, engine_of(base, sparsity=0.5).predict(batch), atol=tolerance, rtol=0)
    assert engines[0].model.word.weight.data_ptr() == engines[1].model.word.weight.data_ptr()


def two_levels_for_a_gpu(base: BaseModel, folder: Path) -> tuple[VariantStore, SharedBase]:
    """Return a store with the variants ``aa..`` (0.5) and ``bb..`` (0.25), and their base on the GPU."""
    store = VariantStore(folder)
    for variant_id, sparsity in (("a" * 16, 0.5), ("b" * 16, 0.25)):
        put_variant(base, store, variant_id, sparsity)
    return store, SharedBase(base, torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_level_beyond_a_full_gpu_is_refused_and_the_live_one_answers_on(base: BaseModel, tmp_path: Path) -> None:
    store, shared = two_levels_for_a_gpu(base, tmp_path)
    live = TorchEngine.load(shared, store, "a" * 16, max_batch_tokens=256)
    batch = sequences([4, 9, 48], base.shape.vocabulary)
    before = live.predict(batch)
    reserved = torch.cuda.memory_reserved() / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(reserved, 0)
    hoard = []
    try:
        with contextlib.suppress(torch.OutOfMemoryError):
            while True:
                hoard.append(torch.empty(1024, device="cuda"))
        with pytest.raises(DeviceMemoryError, match="does not fit into the memory of cuda"):
            TorchEngine.load(shared, store, "b" * 16, max_batch_tokens=1 << 20)
        torch.testing.assert_close(live.predict(batch), before)
    finally:
        hoard.clear()
        torch.cuda.set_per_process_memory_fraction(1.0, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_answers_go_on_unchanged_while_another_level_is_captured(base: BaseModel, tmp_path: Path) -> None:
    store, shared = two_levels_for_a_gpu(base, tmp_path)
    live = TorchEngine.load(shared, store, "a" * 16, max_batch_tokens=1024)
    batches = [sequences([length] * 5, base.shape.vocabulary) for length in (3, 17, 40)]
    expected = [live.predict(batch) for batch in batches]
    with ThreadPoolExecutor(1) as loader:
        loading = loader.submit(TorchEngine.load, shared, store, "b" * 16, max_batch_tokens=1024)
        rounds = 0
        while not loading.done() or rounds < 10:
            for batch, logits in zip(batches, expected, strict=True):
                torch.testing.assert_close(live.predict(batch), logits)
            rounds += 1
        other = loading.result().predict(batches[1])
    torch.testing.assert_close(other, engine_of(base, sparsity=0.25).predict(batches[1]), atol=1e-3, rtol=0)


def test_inference_parts_import_without_ray() -> None:
    code = "import service.ingress, sys; assert not [name for name in sys.modules if name.split('.')[0] == 'ray']"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("precision", "device", "only"), [(Precision.INT8, "cuda", "cpu"), (Precision.FLOAT16, "cpu", "cuda")]
)
def test_what_a_device_does_not_answer_in_is_refused_before_anything_is_loaded(
    base: BaseModel, tmp_path: Path, precision: Precision, device: str, only: str
) -> None:
    store = VariantStore(tmp_path)
    put_variant(base, store, "a" * 16, 0.0, precision)
    (store.folder / ("a" * 16) / WEIGHTS).unlink()
    words = f"is {precision}, which only {only} answers in, and this replica computes on {device}"
    with pytest.raises(PrecisionError, match=words):
        TorchEngine.load(SharedBase(base, torch.device(device)), store, "a" * 16)


def test_a_variant_beyond_the_memory_of_the_device_is_refused_with_a_remedy(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr("service.torch_engine.build_slim", full)
    store = VariantStore(tmp_path)
    put_variant(base, store, "a" * 16, 0.0)
    with pytest.raises(DeviceMemoryError, match=r"does not fit into the memory of cpu .*2 GiB; keep fewer --levels"):
        TorchEngine.load(SharedBase(base, CPU), store, "a" * 16)


@pytest.mark.parametrize(
    ("lane", "cores", "expected"), [(Lane.NARROW, 1, [[4, 9]]), (Lane.WIDE, 1, []), (Lane.WIDE, 2, [[4, 9]])]
)
def test_a_rehearsal_runs_on_the_cores_of_its_lane_or_not_at_all(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch, lane: Lane, cores: int, expected: list[list[int]]
) -> None:
    ran: list[list[int]] = []
    monkeypatch.setattr(TorchEngine, "predict", lambda self, batch: ran.append([len(one.ids) for one in batch]))
    with ThreadPoolExecutor(1, initializer=compute_on, initargs=(cores,)) as thread:
        thread.submit(engine_of(base).rehearse, lane, [4, 9]).result()
    assert ran == expected
