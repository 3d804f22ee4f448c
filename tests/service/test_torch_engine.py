import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.encoder import BaseModel, load_base_model
from pruning.errors import ChecksumError, PrecisionError, StoreError
from pruning.slim.packed import PackedBatch
from pruning.spec import Precision
from pruning.variants import WEIGHTS, VariantStore
from service.engine import NonFiniteLogits
from service.torch_engine import SharedBase, TorchEngine
from tests.service.inference_parts import CPU, BrokenModel, engine_of, put_variant, sequence, sequences


@pytest.fixture(scope="module")
def base(tiny_model_dir: Path) -> BaseModel:
    return load_base_model(tiny_model_dir)


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
def test_an_engine_on_a_gpu_answers_as_on_the_cpu(base: BaseModel, tmp_path: Path) -> None:
    cuda = torch.device("cuda")
    store = VariantStore(tmp_path)
    put_variant(base, store, "a" * 16, 0.5)
    shared = SharedBase(base, cuda)
    engines = [TorchEngine.load(shared, store, "a" * 16) for _ in range(2)]
    engines[0].warm_up()
    batch = sequences([4, 9, 48], base.shape.vocabulary)
    logits = engines[0].predict(batch)
    assert logits.device == CPU
    torch.testing.assert_close(logits, engine_of(base, sparsity=0.5).predict(batch), atol=1e-3, rtol=0)
    assert engines[0].model.word.weight.data_ptr() == engines[1].model.word.weight.data_ptr()


def test_inference_parts_import_without_ray() -> None:
    code = "import service.ingress, sys; assert not [name for name in sys.modules if name.split('.')[0] == 'ray']"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_int8_is_refused_on_a_gpu_before_anything_is_loaded(base: BaseModel, tmp_path: Path) -> None:
    store = VariantStore(tmp_path)
    put_variant(base, store, "a" * 16, 0.0, Precision.INT8)
    (store.folder / ("a" * 16) / WEIGHTS).unlink()
    with pytest.raises(
        PrecisionError, match="int8, which is computed on CPUs alone, and this replica computes on cuda"
    ):
        TorchEngine.load(SharedBase(base, torch.device("cuda")), store, "a" * 16)
