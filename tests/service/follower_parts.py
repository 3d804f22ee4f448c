"""A follower with a controller that answers what the test has set and engines that load when the test lets them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from service.follower import Follower
from service.load import Load
from service.policy import Policy
from service.protocol import Desired, Peer, ReplicaReport, Staged, Trial
from service.tally import Tally
from tests.service.control_parts import SetClock
from tests.service.governor.sightings import load

STAGED = Staged(operation_id="op1", variant_id="half")


@dataclass
class FakeHolder:
    """Engines that load when ``gate`` is open and refuse the variants in ``broken``."""

    generation: int = 1
    variant_id: str = "dense"
    inflight: int = 0
    broken: dict[str, Exception] = field(default_factory=dict)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    loaded: set[str] = field(default_factory=lambda: {"dense"})
    staged: str | None = None
    resident: tuple[str, ...] = ()
    draining: bool = False
    tallies: tuple[Tally, ...] = ()
    distrusted: frozenset[str] = frozenset()
    trial: Trial | None = None
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    async def _get(self, variant_id: str) -> None:
        await self.gate.wait()
        if variant_id in self.broken:
            raise self.broken[variant_id]
        self.loaded.add(variant_id)

    async def stage(self, variant_id: str) -> None:
        self.log.append(f"stage {variant_id}")
        await self._get(variant_id)
        self.staged = variant_id

    def commit(self, generation: int, variant_id: str) -> None:
        assert variant_id in self.loaded
        self.log.append(f"commit {generation} {variant_id}")
        self.generation, self.variant_id = generation, variant_id

    def drop_staged(self) -> None:
        self.log.append("drop")
        self.staged = None

    async def keep_resident(self, variant_ids: tuple[str, ...]) -> None:
        for variant_id in variant_ids:
            if variant_id not in self.loaded:
                await self._get(variant_id)
        self.resident = variant_ids

    def try_out(self, trial: Trial | None) -> None:
        self.trial = trial

    def heed(self, policy: Policy, *, cascade_off: bool = False, distrusted: frozenset[str] = frozenset()) -> None:
        self.policy, self.cascade_off, self.distrusted = policy, cascade_off, distrusted

    def load(self) -> Load:
        return load(1.0, queue_tokens=7)

    def start_draining(self) -> None:
        self.draining = True


@dataclass
class ScriptedLink:
    """A controller that answers with what the test has set, at once when that changes."""

    desired: Desired
    down: bool = False
    reports: list[ReplicaReport] = field(default_factory=list)
    asked: int = 0
    patience_s: float = 0.1

    def wish(self, **changes: object) -> None:
        self.desired = replace(self.desired, version=self.desired.version + 1, **changes)  # type: ignore[arg-type]

    async def sync(self, report: ReplicaReport, known_version: int) -> Desired:
        self.asked += 1
        if self.down:
            raise ConnectionError("no controller")
        self.reports.append(report)
        try:
            async with asyncio.timeout(self.patience_s):
                while self.desired.version == known_version:
                    await asyncio.sleep(0.002)
        except TimeoutError:
            pass
        if self.down:
            raise ConnectionError("no controller")
        return self.desired


@dataclass
class Parts:
    link: ScriptedLink
    holder: FakeHolder
    follower: Follower
    clock: SetClock


def make_parts() -> Parts:
    desired = Desired(
        version=1,
        generation=1,
        variant_id="dense",
        previous_variant_id=None,
        staged=None,
        resident=(),
        draining=False,
        peers=(Peer(replica_id="control", metrics_address="127.0.0.1:3999"),),
        policy=Policy(accuracy_floor=0.8),
    )
    link, holder, clock = ScriptedLink(desired), FakeHolder(), SetClock()
    follower = Follower(
        replica_id="r1",
        metrics_address="127.0.0.1:4001",
        link=link,
        holder=holder,
        door=holder,
        max_lag_s=60.0,
        monotonic=clock,
    )
    return Parts(link, holder, follower, clock)


@asynccontextmanager
async def started(parts: Parts) -> AsyncIterator[Parts]:
    await parts.follower.start(60.0)
    try:
        yield parts
    finally:
        await parts.follower.stop()
