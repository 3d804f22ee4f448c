from pathlib import Path

import pytest

from pruning.encoder import load_base_model
from service.dial import Dial
from service.engine import Engine, Live
from service.levels import Quality, Wish
from service.metrics import ReplicaMetrics
from service.policy import Policy
from service.protocol import Trial
from service.shelf import EngineShelf
from tests.service.inference_parts import engine_of


@pytest.fixture
def engines(tiny_model_dir: Path) -> dict[str, Engine]:
    base = load_base_model(tiny_model_dir)
    return {name: engine_of(base, name, sparsity) for name, sparsity in (("dense", 0.0), ("half", 0.5))}


@pytest.fixture
async def dial(engines: dict[str, Engine]) -> Dial:
    shelf = EngineShelf(lambda variant_id: engines[variant_id], Live(3, engines["dense"]))
    draws = iter([0.1, 0.9] * 50)
    return Dial(shelf, ReplicaMetrics("1"), Policy(accuracy_floor=0.0), draw=lambda: next(draws))


async def test_a_trial_takes_its_share_of_those_who_ask_for_no_level(dial: Dial, engines: dict[str, Engine]) -> None:
    await dial.stage("half")
    dial.try_out(Trial(variant_id="half", fraction=0.5))
    assert [dial.engine_for(Wish()) for _ in range(4)] == [engines["half"], None, engines["half"], None]
    assert dial.engine_for(Wish(quality=Quality.HIGH)) is engines["dense"]
    assert dial.snapshot(engines["half"]) == Live(3, engines["half"])
    dial.try_out(None)
    assert {dial.engine_for(Wish()) for _ in range(4)} == {None}
    assert dial.snapshot(None) == dial.live


async def test_a_trial_of_a_variant_that_is_not_loaded_takes_nothing(dial: Dial) -> None:
    dial.try_out(Trial(variant_id="gone", fraction=1.0))
    assert dial.engine_for(Wish()) is None


async def test_the_dense_model_is_the_resident_one(dial: Dial, engines: dict[str, Engine]) -> None:
    assert dial.dense is None
    await dial.keep_resident(("half", "dense"))
    assert dial.dense is engines["dense"]
