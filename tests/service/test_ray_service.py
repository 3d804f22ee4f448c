import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.serve

from pruning.errors import PruningError
from pruning.spec import Precision
from service.cluster import CONTROL_APP, MODEL_APP
from service.ladder import Ladder
from service.limits import MAX_WAIT_S
from service.ray_service import RayService, _refuse_taken_names, check_nodes, gpu_share, serve_limit_s
from service.settings import Device, Settings
from service.sources import Sources


@pytest.mark.parametrize(
    ("device", "total", "free", "replicas", "share", "expected"),
    [
        (Device.CPU, 8, 8, 2, 1.0, 0),
        (Device.AUTO, 0, 0, 2, 1.0, 0),
        (Device.AUTO, 2, 2, 2, 1.0, 1),
        (Device.CUDA, 1, 1, 1, 1.0, 1),
        (Device.CUDA, 8, 2, 2, 1.0, 1),
        (Device.CUDA, 1, 1, 2, 0.5, 0.5),
        (Device.CUDA, 2, 2, 4, 0.4, 0.4),
    ],
)
def test_a_replica_takes_its_share_of_a_gpu_where_there_is_room_for_each(
    device: Device, total: float, free: float, replicas: int, share: float, expected: float
) -> None:
    settings = Settings(device=device, gpus_per_replica=share)
    assert gpu_share(settings, total, free, at_once=replicas) == expected


@pytest.mark.parametrize(
    ("device", "total", "free", "replicas", "share"),
    [
        (Device.CUDA, 0, 0, 1, 1.0),
        (Device.CUDA, 1, 1, 2, 1.0),
        (Device.AUTO, 1, 1, 2, 1.0),
        (Device.AUTO, 4, 1, 2, 1.0),
        (Device.CUDA, 2, 2, 3, 0.6),  # 1.8 in all, but a replica lies on one GPU
    ],
)
def test_too_few_free_gpus_are_refused_at_once(
    device: Device, total: float, free: float, replicas: int, share: float
) -> None:
    words = rf"--device {device.value} .* {replicas} replicas, .* of the {total} that Ray sees {free} are free;"
    with pytest.raises(PruningError, match=words):
        gpu_share(Settings(device=device, gpus_per_replica=share), total, free, at_once=replicas)


def test_float16_without_a_gpu_is_refused_at_once() -> None:
    with pytest.raises(PruningError, match=r"precision float16 needs 1 GPUs .* use --device cpu with float32"):
        gpu_share(Settings(precision=(Precision.FLOAT16,)), 0, 0, at_once=1)


def node(address: str = "10.0.0.1", cpus: float = 2.0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "NodeManagerAddress": address, "Resources": {"CPU": cpus} if cpus else {}}


def test_replicas_that_no_node_may_take_are_refused_at_once() -> None:
    settings = Settings(replicas_per_node=2)
    check_nodes(settings, [node(), node()], at_once=4)
    for others in ([], [node(cpus=0)], [node(alive=False)]):
        with pytest.raises(PruningError, match=r"3 replicas, 2 on each .* need 2 machines, and Ray sees 1 with CPUs"):
            check_nodes(settings, [node(), *others], at_once=3)
    check_nodes(Settings(), [node()], at_once=3)


def test_several_machines_are_refused_a_host_at_which_they_do_not_reach_each_other() -> None:
    nodes = [node(), node("10.0.0.2", cpus=0)]
    with pytest.raises(PruningError, match=r"\(10\.0\.0\.1, 10\.0\.0\.2\), and at --host 127\.0\.0\.1 none is reached"):
        check_nodes(Settings(), nodes, at_once=1)
    check_nodes(Settings(host="0.0.0.0"), nodes, at_once=1)
    check_nodes(Settings(), [node(), node(), node("10.0.0.2", alive=False)], at_once=1)


@pytest.mark.parametrize(("address", "expected"), [(None, 4), ("auto", 2)])
def test_only_a_cluster_of_others_may_get_room_for_more_later(address: str | None, expected: int) -> None:
    settings = Settings(address=address, replicas=2, max_replicas=4)
    assert RayService(settings, Sources(*[Path("nowhere")] * 4), Ladder((), ""))._at_once == expected


@pytest.mark.parametrize("name", [CONTROL_APP, MODEL_APP])
def test_an_application_of_somebody_else_is_not_replaced(name: str) -> None:
    with pytest.raises(PruningError, match=f"ray://there already serves an application named {name};"):
        _refuse_taken_names("ray://there", {name: object(), "other": object()})
    _refuse_taken_names("ray://there", {"other": object()})


@pytest.mark.parametrize("request_timeout_s", [0.5, 30.0, 900.0])
def test_serve_cuts_off_neither_a_request_nor_a_wait_that_we_allow(request_timeout_s: float) -> None:
    limit_s = serve_limit_s(Settings(request_timeout_s=request_timeout_s))
    assert limit_s > request_timeout_s
    assert limit_s > MAX_WAIT_S


def unexpected(**kwargs: Any) -> Any:
    raise AssertionError("nobody is there to ask")


class FakeServe:
    """The calls of Serve that an end makes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, drain: Any) -> None:
        self.ended = 0
        self.deleted: list[str] = []

        class Method:
            remote = staticmethod(drain)

        class Control:
            drain = Method
            inflight = Method

        async def shutdown() -> None:
            self.ended += 1

        there = SimpleNamespace(applications={CONTROL_APP: None, MODEL_APP: None, "other": None})
        monkeypatch.setattr(ray.serve, "get_app_handle", lambda name: Control)
        monkeypatch.setattr(ray.serve, "shutdown_async", shutdown)
        monkeypatch.setattr(ray.serve, "status", lambda: there)
        monkeypatch.setattr(ray.serve, "delete", self.deleted.append)


def end(drain_s: float, *, address: str | None = None, deployed: bool = True, serving: bool = True) -> None:
    sources = Sources(*[Path("nowhere")] * 4)
    service = RayService(Settings(address=address), sources, Ladder((), ""))
    service._deployed, service._serving = deployed, serving
    asyncio.run(service._drain_then_end(drain_s))


def test_a_controller_that_never_answers_does_not_keep_the_service_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = FakeServe(monkeypatch, lambda: asyncio.Event().wait())
    end(0.05)
    assert serve.ended == 1


def test_nor_does_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone() -> int:
        raise ConnectionError("the actor died")

    serve = FakeServe(monkeypatch, gone)
    end(5)
    assert serve.ended == 1


def test_what_never_served_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = FakeServe(monkeypatch, unexpected)
    end(5, serving=False)
    assert serve.ended == 1


@pytest.mark.parametrize("deployed", [True, False])
def test_on_a_cluster_of_others_only_what_was_deployed_is_ended(
    monkeypatch: pytest.MonkeyPatch, deployed: bool
) -> None:
    serve = FakeServe(monkeypatch, unexpected)
    end(5, address="auto", deployed=deployed, serving=False)
    assert (serve.ended, sorted(serve.deleted)) == (0, [CONTROL_APP, MODEL_APP] if deployed else [])
