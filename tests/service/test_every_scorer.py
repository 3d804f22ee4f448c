"""Whoever names a scorer is answered by its cut: all from the admin route to the replica is real, but for Ray."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from pruning.encoder import load_base_model
from pruning.scores import SCORERS
from pruning.spec import PruneSpec
from pruning.tokenization import TextTokenizer
from pruning.variants import Manifest, VariantStore
from service import builder as module
from service.admin import build_admin_api
from service.builder import VariantBuilder
from service.control_metrics import ControlMetrics
from service.controller import VariantController
from service.engine import Live
from service.engine_choice import EngineLoader
from service.follower import Follower
from service.limits import ControlLimits
from service.metrics import ReplicaMetrics
from service.policy import Policy
from service.policy_desk import POLICY, PolicyDesk
from service.protocol import Refusal
from service.runtime import InferenceRuntime
from service.settings import EngineName, Settings
from service.shelf import EngineShelf
from service.sources import Sources
from service.state import StateFile
from service.torch_engine import SharedBase
from tests.service.inference_parts import CARD, CPU, client_of

ADDRESS = "127.0.0.1:4000"
SETTINGS = Settings(engine=EngineName.TORCH)
WAITED = {"wait": "60"}


@pytest.fixture(scope="module")
def sources(tiny_model_dir: Path, tiny_rows: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tiny_model_dir, *tiny_rows, tmp_path_factory.mktemp("every-scorer"))


@pytest.fixture(scope="module")
def builder(sources: Sources) -> VariantBuilder:
    """A calibrated builder that leaves the priority of the tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "yield_cpu", lambda: None)
        builder = VariantBuilder(sources, threads=1, keep_variants=99)
    builder.calibrate()
    return builder


class InThread:
    """A builder beside the event loop."""

    def __init__(self, builder: VariantBuilder) -> None:
        self._builder = builder

    async def build(self, spec: PruneSpec, in_use: frozenset[str]) -> Manifest | Refusal:
        return await asyncio.to_thread(self._builder.build, spec, in_use)


@asynccontextmanager
async def service_of(
    builder: VariantBuilder, sources: Sources, state: Path
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Yield clients of the admin routes and of the one replica of a service that begins dense."""
    store, dense = VariantStore(sources.store), builder.build(PruneSpec(sparsity=0.0))
    assert isinstance(dense, Manifest)
    controller = VariantController(
        limits=ControlLimits(),
        desk=PolicyDesk(state.with_name(POLICY), Policy(accuracy_floor=0.0), dense_accuracy=1.0),
        builder=InThread(builder),
        state_file=StateFile(state),
        store=store,
        metrics=ControlMetrics(),
        initial_variant=dense.variant_id,
        ladder=(dense.variant_id,),
        metrics_address=ADDRESS,
    )
    await controller.start()
    load = EngineLoader(SharedBase(load_base_model(sources.model), CPU), store, SETTINGS, 1)
    runtime = InferenceRuntime(
        EngineShelf(load, Live(1, load(dense.variant_id))),
        TextTokenizer.load(sources.model),
        ReplicaMetrics(CARD.version),
        SETTINGS,
        replica_id="r1",
    )
    follower = Follower(replica_id="r1", metrics_address=ADDRESS, link=controller, holder=runtime.dial, door=runtime)
    routes = build_admin_api(lambda: controller, "token", frontier=list, cascades=list, scorers=SCORERS)
    headers = {"authorization": "Bearer token"}
    async with (
        client_of(runtime, SETTINGS) as replica,
        httpx.AsyncClient(transport=httpx.ASGITransport(routes), base_url="http://admin", headers=headers) as admin,
    ):
        await follower.start(timeout_s=60.0)
        yield admin, replica
        await follower.stop()
    await controller.stop()


async def committed(admin: httpx.AsyncClient, replica: httpx.AsyncClient, wish: dict[str, object]) -> None:
    """Ask for a cut, and hold the replica's next answer against what was committed."""
    operation = await admin.put("/sparsity", json=wish, params=WAITED)
    assert (operation.status_code, operation.json()["phase"]) == (200, "committed"), operation.text
    assert wish.items() <= operation.json().items()
    answer = await replica.post("/", json={"inputs": "the film was good"})
    assert answer.status_code == 200, answer.text
    assert {choice["label"] for choice in answer.json()[0]} == {"negative", "positive"}
    assert answer.headers["x-variant"] == operation.json()["variant"]
    assert float(answer.headers["x-sparsity"]) == pytest.approx(0.5, abs=0.1)


async def test_every_scorer_that_is_asked_for_answers(
    builder: VariantBuilder, sources: Sources, tmp_path: Path
) -> None:
    async with service_of(builder, sources, tmp_path / "state.json") as (admin, replica):
        for scorer in SCORERS:
            await committed(admin, replica, {"sparsity": 0.5, "scorer": scorer})


async def test_so_does_every_way_to_cut(builder: VariantBuilder, sources: Sources, tmp_path: Path) -> None:
    ways: tuple[dict[str, object], ...] = (
        {"recover": "sequential"},
        {"pattern": "unstructured", "recover": "reconstruct"},
        {"pattern": "2:4", "recover": "sequential"},
        {"rounds": 4},
        {"pattern": "unstructured", "scope": "row", "rounds": 4},
    )
    async with service_of(builder, sources, tmp_path / "state.json") as (admin, replica):
        for way in ways:
            await committed(admin, replica, {"sparsity": 0.5, **way})
