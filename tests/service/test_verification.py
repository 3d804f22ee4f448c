from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from pruning.encoder import load_base_model
from pruning.pipeline import build_variant
from pruning.probes import probes
from pruning.spec import Precision, PruneSpec
from pruning.workbench import Workbench
from service.engine_choice import EngineLoader
from service.settings import Settings
from service.torch_engine import SharedBase, TorchEngine
from service.verification import AnswersChanged, verify
from tests.service.inference_parts import CPU, engine_of


@pytest.fixture(scope="module")
def bench(tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    made = Workbench.open(tiny_model_dir, *tiny_rows, tmp_path_factory.mktemp("store"))
    made.calibrate()
    return made


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.BFLOAT16])
@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_what_was_built_answers_as_it_did_on_every_engine(bench: Workbench, precision: Precision, engine: str) -> None:
    manifest = build_variant(bench, PruneSpec(sparsity=0.4, precision=precision, recover="none"))  # type: ignore[arg-type]
    assert len(manifest.probe_logits) == 3
    load = EngineLoader(SharedBase(bench.base, CPU), bench.store, Settings(engine=engine), threads=1)  # type: ignore[arg-type]
    assert load(manifest.variant_id).manifest.variant_id == manifest.variant_id


def changed(engine: TorchEngine, by: float) -> TorchEngine:
    """The engine, whose manifest says logits that differ by so much."""
    logits: Tensor = engine.predict(probes(engine.max_length, engine.model.word.num_embeddings))
    told = [[value + by for value in row] for row in logits.tolist()]
    return replace(engine, manifest=replace(engine.manifest, probe_logits=told))


def test_other_answers_than_when_it_was_judged_are_refused_with_the_number(tiny_model_dir: Path) -> None:
    base = load_base_model(tiny_model_dir)
    engine = engine_of(base, "a" * 16, 0.5)
    verify(changed(engine, 0.001), base.shape.vocabulary)
    with pytest.raises(AnswersChanged, match=r"differs by 0\.5") as refused:
        verify(changed(engine, 0.5), base.shape.vocabulary)
    assert "a" * 16 in str(refused.value) and "remove it" in str(refused.value)


def test_a_variant_of_before_is_let_through(tiny_model_dir: Path) -> None:
    base = load_base_model(tiny_model_dir)
    verify(engine_of(base), base.shape.vocabulary)
