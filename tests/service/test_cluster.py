import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import serve
from ray.exceptions import RayActorError

from service.cluster import CONTROL_APP, RayBuilder, RayControlLink
from service.operations import Cause
from service.protocol import Refusal, ReplicaReport
from service.sources import Sources
from tests.service.control_parts import HALF, until

REPORT = ReplicaReport(
    replica_id="r1",
    generation=1,
    variant_id="dense",
    prepared_operation=None,
    failed_operation=None,
    failure=None,
    metrics_address="",
    inflight=0,
)


NODE = "a" * 56


class FakeServe:
    """The look-up of a handle, and a controller that answers as the test says."""

    def __init__(self) -> None:
        self.looked_up: list[int] = []
        self.there = threading.Event()
        self.there.set()
        self.known = True
        self.answers: Iterator[Any] = iter(())

    def get_app_handle(self, name: str) -> Any:
        assert name == CONTROL_APP
        self.looked_up.append(threading.get_ident())
        assert self.there.wait(10)
        if not self.known:
            raise RuntimeError("no such application")
        return self

    @property
    def sync(self) -> Any:
        return self

    async def remote(self, report: ReplicaReport, known_version: int) -> Any:
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeServe:
    fake = FakeServe()
    monkeypatch.setattr(serve, "get_app_handle", fake.get_app_handle)
    return fake


async def test_the_controller_is_looked_up_once_and_away_from_the_event_loop(fake: FakeServe) -> None:
    link = RayControlLink()
    fake.answers = iter(["first", ConnectionError("restarting"), "second"])
    assert await link.sync(REPORT, 0) == "first"
    with pytest.raises(ConnectionError):
        await link.sync(REPORT, 0)
    assert await link.sync(REPORT, 0) == "second"
    assert len(fake.looked_up) == 1
    assert threading.get_ident() not in fake.looked_up


async def test_a_look_up_that_hangs_holds_nobody_up_and_is_not_begun_twice(fake: FakeServe) -> None:
    link = RayControlLink()
    fake.there.clear()
    fake.answers = iter(["at last"])
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await link.sync(REPORT, 0)
    fake.there.set()
    assert await link.sync(REPORT, 0) == "at last"
    assert len(fake.looked_up) == 1


async def test_a_controller_that_is_not_there_yet_is_looked_up_again(fake: FakeServe) -> None:
    link = RayControlLink()
    fake.known = False
    with pytest.raises(RuntimeError, match="no such application"):
        await link.sync(REPORT, 0)
    fake.known = True
    fake.answers = iter(["there"])
    assert await link.sync(REPORT, 0) == "there"


class FakeActors:
    """Ray's actors: each builds as ``fate`` says."""

    def __init__(self) -> None:
        self.started: list[FakeActor] = []
        self.killed: list[FakeActor] = []
        self.options: dict[str, Any] = {}
        self.fates: Iterator[Any] = iter(())

    def remote(self, **options: Any) -> Any:
        self.options = options
        return lambda actor_class: SimpleNamespace(remote=self.start)

    def start(self, *arguments: Any) -> "FakeActor":
        self.started.append(FakeActor(self))
        return self.started[-1]


class FakeActor:
    def __init__(self, actors: FakeActors) -> None:
        self.asked: list[str] = []

        async def build(*arguments: Any) -> Any:
            self.asked.append("build")
            fate = next(actors.fates)
            if fate is None:
                await asyncio.Event().wait()
            if isinstance(fate, Exception):
                raise fate
            return fate

        self.warm = SimpleNamespace(remote=lambda: self.asked.append("warm"))
        self.build = SimpleNamespace(remote=build)


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> FakeActors:
    actors = FakeActors()
    monkeypatch.setattr(ray, "remote", actors.remote)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: NODE))
    monkeypatch.setattr(ray, "kill", actors.killed.append)
    return actors


def builder_of() -> RayBuilder:
    return RayBuilder(Sources(*[Path("nowhere")] * 4), 1, 64)


def test_the_builder_is_on_the_node_of_its_controller_and_no_other(actors: FakeActors) -> None:
    builder_of()
    placed = actors.options["scheduling_strategy"]
    assert (placed.node_id, placed.soft) == (NODE, False)


@pytest.mark.parametrize("retired", [False, True])
async def test_a_cancelled_build_ends_with_its_process_and_another_warms_up(actors: FakeActors, retired: bool) -> None:
    builder = builder_of()
    actors.fates = iter([None])
    build = asyncio.create_task(builder.build(HALF))
    await until(lambda: "build" in actors.started[0].asked)
    if retired:
        builder.retire()
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build
    assert actors.killed == actors.started[:1]
    assert [actor.asked for actor in actors.started] == [["warm", "build"], ["warm"]][: 1 if retired else 2]


async def test_a_build_whose_process_dies_is_begun_again_once(actors: FakeActors) -> None:
    refusal = Refusal(message="no rows", cause=Cause.BUILD)
    actors.fates = iter([RayActorError(), refusal, RayActorError(), RayActorError()])
    builder = builder_of()
    assert await builder.build(HALF) == refusal
    with pytest.raises(RayActorError):
        await builder.build(HALF)
    assert [actor.asked for actor in actors.started] == [
        ["warm", "build"],
        ["warm", "build", "build"],
        ["warm", "build"],
    ]
