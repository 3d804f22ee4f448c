"""Parts of a controller, small and real: manifests in a store, a builder that obeys the test, a clock set by hand."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import torch

from pruning.cascade import Cascade
from pruning.cost import Cost
from pruning.evaluation import Evaluation
from pruning.metrics import Metric
from pruning.spec import PruneSpec
from pruning.timing import Speed
from pruning.variants import Manifest, VariantStore
from service.control_metrics import ControlMetrics
from service.controller import VariantController
from service.ladder_cascades import LadderCascade
from service.limits import Clock, ControlLimits
from service.load import Load
from service.operations import Choice, Operation, RolloutState
from service.policy import Policy
from service.policy_desk import POLICY, PolicyDesk
from service.protocol import Desired, Refusal, ReplicaReport
from service.state import StateFile, StateUnwritable

FLOOR = 0.85
DENSE, HALF, MORE = PruneSpec(sparsity=0.0), PruneSpec(sparsity=0.5), PruneSpec(sparsity=0.7)
SOON_S = 60.0
"""A wait that no test uses up."""


def id_of(spec: PruneSpec) -> str:
    return f"{round(spec.sparsity * 1e4):016x}"


def manifest_of(spec: PruneSpec, accuracy: float = 0.9) -> Manifest:
    return Manifest(
        variant_id=id_of(spec),
        spec=spec,
        achieved_sparsity=spec.sparsity,
        base_digest="b" * 64,
        heads=[4, 4],
        neurons=[64, 64],
        cost=Cost(parameters=1000, prunable_parameters=800, macs=10_000, macs_length=128, bytes=4000),
        evaluation=Evaluation(
            metric=Metric(name="accuracy", value=accuracy, low=accuracy - 0.02, high=accuracy + 0.02),
            agreement=0.97,
            rows=600,
        ),
        speed=Speed(latency_p50_ms=4.0, items_per_s=250.0),
        build_seconds={},
    )


def ladder_cascade(spec: PruneSpec, target: float = 0.99, accuracy: float = 0.9) -> LadderCascade:
    """The cascade of a level for an agreement, which it reaches on the evaluation rows; its id names both."""
    level = manifest_of(spec, accuracy)
    cascade = Cascade(
        cascade_id=f"{level.variant_id}-{target:g}",
        variant_id=level.variant_id,
        dense_id=id_of(DENSE),
        target=target,
        threshold=0.5,
        calibration_agreement=target,
        calibration_rows=1000,
        calibration_digest="",
        apart=True,
        escalated=0.2,
        evaluation=replace(level.evaluation, agreement=target),
    )
    return LadderCascade(level, cascade)


def choice_of(spec: PruneSpec = DENSE, *, accuracy: float = 0.9, operation_id: str | None = None) -> Choice:
    return Choice(
        variant_id=id_of(spec),
        spec=spec,
        achieved_sparsity=spec.sparsity,
        accuracy=accuracy,
        operation_id=operation_id,
    )


def first_state() -> RolloutState:
    return RolloutState.first(manifest_of(DENSE))


def report_of(
    replica_id: str = "r1",
    *,
    generation: int = 1,
    spec: PruneSpec = DENSE,
    prepared: str | None = None,
    failed: str | None = None,
    failure: str | None = None,
    inflight: int = 0,
    load: Load | None = None,
) -> ReplicaReport:
    return ReplicaReport(
        replica_id=replica_id,
        generation=generation,
        variant_id=id_of(spec),
        prepared_operation=prepared,
        failed_operation=failed,
        failure=failure,
        metrics_address=f"127.0.0.1:{4000 + sum(replica_id.encode())}",
        inflight=inflight,
        load=load,
    )


@dataclass
class SetClock:
    """Time that passes only when the test says so."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeBuilder:
    """Builds at once, or when ``gate`` opens; ``accuracy``, ``refusal`` and ``error`` decide how it ends.

    ``edition`` stands for rows and versions: variants of another one have other ids.
    """

    store: VariantStore
    accuracy: float = 0.9
    refusal: Refusal | None = None
    error: Exception | None = None
    edition: str = ""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[PruneSpec] = field(default_factory=list)
    in_use: list[frozenset[str]] = field(default_factory=list)
    cancelled: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    async def build(self, spec: PruneSpec, in_use: frozenset[str]) -> Manifest | Refusal:
        self.asked.append(spec)
        self.in_use.append(in_use)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        if self.refusal is not None:
            return self.refusal
        return put(self.store, spec, self.accuracy, self.edition)


def put(
    store: VariantStore, spec: PruneSpec, accuracy: float = 0.9, edition: str = "", items_per_s: float = 250.0
) -> Manifest:
    manifest = manifest_of(spec, accuracy)
    speed = replace(manifest.speed, items_per_s=items_per_s)
    return store.put(
        {"weight": torch.zeros(1)}, replace(manifest, variant_id=edition + manifest.variant_id, speed=speed)
    )


@dataclass
class Control:
    """A controller with everything around it in the test's hands."""

    controller: VariantController
    builder: FakeBuilder
    clock: SetClock
    file: StateFile
    metrics: ControlMetrics

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"sparsedial_{name}", labels)


def make_control(
    root: Path,
    *,
    tick_s: float = 0.01,
    poll_s: float = 0.5,
    floor: float = FLOOR,
    ladder: tuple[str, ...] = (),
    clock: SetClock | None = None,
    cascades: tuple[LadderCascade, ...] = (),
) -> Control:
    """Return a controller over ``root``, not started, with a dense variant to begin with, alone on the ladder."""
    store = VariantStore(root)
    if id_of(DENSE) not in store:
        put(store, DENSE)
    builder, clock, metrics = FakeBuilder(store), clock or SetClock(), ControlMetrics()
    file = StateFile(root / "state.json")
    controller = VariantController(
        limits=ControlLimits(poll_s=poll_s, tick_s=tick_s, build_timeout_s=60.0, prepare_timeout_s=30.0),
        desk=PolicyDesk(root / POLICY, Policy(accuracy_floor=floor), dense_accuracy=0.9, cascades=cascades),
        builder=builder,
        state_file=file,
        store=store,
        metrics=metrics,
        initial_variant=id_of(DENSE),
        ladder=ladder or (id_of(DENSE),),
        metrics_address="127.0.0.1:3999",
        clock=Clock(wall=clock, monotonic=clock),
    )
    return Control(controller, builder, clock, file, metrics)


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Let the event loop run until ``condition`` holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


class ModelReplica:
    """The replica's half of the protocol, one question at a time, obeying what it is told."""

    def __init__(self, controller: VariantController, replica_id: str = "r1") -> None:
        self.controller = controller
        self.id = replica_id
        self.generation = 1
        self.variant_id = id_of(DENSE)
        self.prepared: str | None = None
        self.failure: str | None = None
        self.failed: str | None = None
        self.version = -1
        self.load: Load | None = None

    def report(self) -> ReplicaReport:
        return ReplicaReport(
            replica_id=self.id,
            generation=self.generation,
            variant_id=self.variant_id,
            prepared_operation=self.prepared,
            failed_operation=self.failed,
            failure=self.failure,
            metrics_address=f"127.0.0.1:{4000 + sum(self.id.encode())}",
            inflight=0,
            load=self.load,
        )

    async def ask(self) -> Desired:
        desired = await self.controller.sync(self.report(), self.version)
        self.version = desired.version
        return desired

    async def follow(self) -> None:
        """Ask and obey for ever."""
        while True:
            desired = await self.ask()
            if desired.staged is not None and self.failure is not None:
                self.failed = desired.staged.operation_id
            elif desired.staged is not None:
                self.prepared = desired.staged.operation_id
            self.generation, self.variant_id = desired.generation, desired.variant_id


@asynccontextmanager
async def following(controller: VariantController, *replicas: ModelReplica) -> AsyncIterator[None]:
    """Replicas that follow while the block runs, each known to the controller from the start."""
    tasks = [asyncio.create_task(replica.follow()) for replica in replicas]
    try:
        await until(lambda: len(controller.view.status()["replicas"]) == len(replicas))
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def full_disk() -> Iterator[None]:
    """No state can be written while the block runs."""

    def refuse(self: StateFile, state: RolloutState) -> bool:
        raise StateUnwritable(f"{self.path} could not be written: {os.strerror(errno.ENOSPC)}; free space")

    with patch.object(StateFile, "write", refuse):
        yield


async def swap(control: Control, spec: PruneSpec) -> Operation:
    operation = await control.controller.request_change(spec)
    return await control.controller.wait(operation.id, SOON_S)
