import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pruning.errors import ChecksumError
from pruning.spec import PruneSpec
from service import follower
from service.errors import NotReady
from service.follower import Follower
from service.load import Load
from service.newborn import first_desired
from service.operations import Phase
from service.policy import Mode, Policy
from service.protocol import Desired, Peer, ReplicaReport, Staged, Trial
from service.tally import Tally
from tests.service.control_parts import SetClock, make_control, until
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

    def heed(self, policy: Policy, *, cascade_off: bool = False) -> None:
        self.policy, self.cascade_off = policy, cascade_off

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


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    async with started(make_parts()) as parts:
        yield parts


async def test_a_staged_variant_is_loaded_reported_and_committed_at_once(parts: Parts) -> None:
    parts.link.wish(staged=STAGED)
    await until(lambda: parts.link.reports[-1].prepared_operation == "op1")
    assert parts.holder.generation == 1
    parts.link.wish(staged=None, generation=2, variant_id="half", previous_variant_id="dense")
    await until(lambda: parts.link.reports[-1].generation == 2)
    assert parts.link.reports[-1].variant_id == "half"
    assert parts.link.reports[-1].prepared_operation is None
    assert parts.holder.log == ["stage half", "commit 2 half"]


async def test_heartbeats_go_on_while_a_variant_loads(parts: Parts) -> None:
    parts.holder.gate.clear()
    parts.link.wish(staged=STAGED)
    await until(lambda: parts.holder.log == ["stage half"])
    heard = len(parts.link.reports)
    await until(lambda: len(parts.link.reports) >= heard + 3)
    assert parts.link.reports[-1].prepared_operation is None
    parts.holder.gate.set()
    await until(lambda: parts.link.reports[-1].prepared_operation == "op1")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ChecksumError("weights.safetensors does not match"), "weights.safetensors does not match"),
        (RuntimeError("CUDA out of memory at 0x7f"), "variant half could not be loaded (RuntimeError)"),
    ],
)
async def test_a_variant_that_cannot_be_loaded_is_reported_and_not_tried_again(
    parts: Parts, error: Exception, words: str
) -> None:
    parts.holder.broken["half"] = error
    parts.link.wish(staged=STAGED)
    await until(lambda: parts.link.reports[-1].failed_operation == "op1")
    failure = parts.link.reports[-1].failure
    assert failure is not None and words in failure and "0x7f" not in failure
    parts.link.wish(staged=None)
    parts.link.wish(peers=())
    await until(lambda: parts.follower.peers == ())
    assert parts.holder.log == ["stage half"]
    assert (parts.holder.generation, parts.holder.variant_id) == (1, "dense")


async def test_the_next_operation_may_try_the_same_variant_again(parts: Parts) -> None:
    parts.holder.broken["half"] = RuntimeError()
    parts.link.wish(staged=STAGED)
    await until(lambda: parts.link.reports[-1].failed_operation == "op1")
    parts.holder.broken.clear()
    parts.link.wish(staged=replace(STAGED, operation_id="op2"))
    await until(lambda: parts.link.reports[-1].prepared_operation == "op2")


async def test_a_variant_no_longer_wanted_is_dropped(parts: Parts) -> None:
    parts.link.wish(staged=STAGED)
    await until(lambda: parts.link.reports[-1].prepared_operation == "op1")
    parts.link.wish(staged=None)
    await until(lambda: parts.holder.log[-1] == "drop")
    await until(lambda: parts.link.reports[-1].prepared_operation is None)


async def test_a_commit_that_this_replica_did_not_prepare_is_caught_up_with(parts: Parts) -> None:
    parts.link.wish(generation=5, variant_id="more")
    await until(lambda: parts.holder.generation == 5)
    assert parts.holder.log == ["stage more", "commit 5 more"]


async def test_catching_up_is_tried_until_it_works(parts: Parts) -> None:
    parts.holder.broken["more"] = RuntimeError()
    parts.link.wish(generation=5, variant_id="more")
    await until(lambda: parts.holder.log.count("stage more") >= 2)
    assert parts.holder.variant_id == "dense"
    parts.holder.broken.clear()
    await until(lambda: parts.holder.generation == 5)


async def test_a_commit_in_the_middle_of_its_staging_is_obeyed_when_that_ends(parts: Parts) -> None:
    parts.holder.gate.clear()
    parts.link.wish(staged=STAGED)
    await until(lambda: parts.holder.log == ["stage half"])
    parts.link.wish(staged=None, generation=2, variant_id="half")
    await until(lambda: parts.follower._desired is not None and parts.follower._desired.generation == 2)
    parts.holder.gate.set()
    await until(lambda: parts.holder.generation == 2)
    assert parts.holder.log == ["stage half", "commit 2 half"]


async def test_no_generation_is_ever_gone_back_on(parts: Parts) -> None:
    parts.link.wish(generation=5, variant_id="more")
    await until(lambda: parts.holder.generation == 5)
    parts.link.wish(generation=4, variant_id="dense", peers=())
    await until(lambda: parts.follower.peers == ())
    assert (parts.holder.generation, parts.holder.variant_id) == (5, "more")


async def test_the_ladder_and_the_previous_variant_are_kept_and_others_let_go(parts: Parts) -> None:
    parts.link.wish(resident=("dense", "low", "high"))
    await until(lambda: set(parts.holder.resident) == {"dense", "low", "high"})
    parts.link.wish(staged=STAGED)
    await until(lambda: parts.link.reports[-1].prepared_operation == "op1")
    parts.link.wish(staged=None, generation=2, variant_id="half", previous_variant_id="dense", resident=("low",))
    await until(lambda: set(parts.holder.resident) == {"half", "dense", "low"})


async def test_a_swap_to_a_resident_variant_needs_no_second_load(parts: Parts) -> None:
    parts.link.wish(resident=("low",))
    await until(lambda: "low" in parts.holder.resident)
    parts.link.wish(generation=2, variant_id="low")
    await until(lambda: parts.holder.generation == 2)
    assert parts.holder.log == ["commit 2 low"]


async def test_a_level_that_cannot_be_loaded_keeps_no_other_out(parts: Parts) -> None:
    parts.holder.broken["low"] = ChecksumError("low is damaged")
    parts.link.wish(resident=("low", "high"))
    await until(lambda: "high" in parts.holder.resident)
    assert "low" not in parts.holder.resident
    parts.link.wish(staged=STAGED)
    await until(lambda: parts.link.reports[-1].prepared_operation == "op1")
    assert parts.follower.healthy()


OTHERS = (Peer(replica_id="control", metrics_address=""), Peer(replica_id="r2", metrics_address=""))


async def test_where_others_answer_a_replica_counts_only_once_it_has_the_ladder(parts: Parts) -> None:
    parts.holder.gate.clear()
    parts.link.wish(resident=("dense", "low", "high"), peers=OTHERS)
    await until(lambda: parts.follower.peers == OTHERS)
    settling = asyncio.create_task(parts.follower.settle(60.0))
    heard = len(parts.link.reports)
    await until(lambda: len(parts.link.reports) > heard + 1)
    assert not settling.done()
    assert all(report.load is None for report in parts.link.reports)
    parts.holder.gate.set()
    await settling
    assert set(parts.holder.resident) == {"dense", "low", "high"}
    await until(lambda: parts.link.reports[-1].load is not None)


async def test_a_level_that_cannot_be_loaded_is_not_waited_for(parts: Parts) -> None:
    parts.holder.broken["low"] = ChecksumError("low is damaged")
    parts.link.wish(resident=("low", "high"), peers=OTHERS)
    await until(lambda: parts.follower.peers == OTHERS)
    await parts.follower.settle(60.0)
    assert set(parts.holder.resident) == {"dense", "high"}


async def test_a_ladder_that_changes_while_it_is_loaded_is_waited_for_as_it_is_now(parts: Parts) -> None:
    parts.holder.gate.clear()
    parts.link.wish(resident=("low",), peers=OTHERS)
    await until(lambda: parts.follower.peers == OTHERS)
    settling = asyncio.create_task(parts.follower.settle(60.0))
    more = (*OTHERS, Peer(replica_id="r3", metrics_address=""))
    parts.link.wish(resident=("low", "high"), peers=more)
    await until(lambda: parts.follower.peers == more)
    parts.holder.gate.set()
    await settling
    assert set(parts.holder.resident) == {"dense", "low", "high"}


async def test_alone_or_in_vain_no_replica_waits_for_the_ladder(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    parts.holder.gate.clear()
    parts.link.wish(resident=("low",))
    await until(lambda: parts.follower._desired is not None and parts.follower._desired.resident == ("low",))
    await parts.follower.settle(60.0)
    assert not caplog.messages
    parts.link.wish(peers=OTHERS)
    await until(lambda: parts.follower.peers == OTHERS)
    await parts.follower.settle(0.01)
    assert "the ladder was not loaded in time" in caplog.text


async def test_draining_is_passed_on_once_told(parts: Parts) -> None:
    assert not parts.holder.draining
    parts.link.wish(draining=True)
    await until(lambda: parts.holder.draining)


async def test_the_controllers_absence_changes_nothing_and_its_return_is_noticed(parts: Parts) -> None:
    parts.link.down = True
    await asyncio.sleep(0.15)
    heard = len(parts.link.reports)
    assert parts.follower.healthy()
    assert parts.holder.log == []
    parts.link.down = False
    parts.link.wish(staged=STAGED)
    await until(lambda: len(parts.link.reports) > heard)
    await until(lambda: parts.link.reports[-1].prepared_operation == "op1")


async def test_a_silent_controller_makes_no_replica_unhealthy(parts: Parts) -> None:
    parts.link.down = True
    await asyncio.sleep(0.12)
    parts.clock.now += 86_400.0
    assert parts.follower.healthy()
    parts.link.down = False
    parts.link.wish(staged=STAGED)
    await until(lambda: parts.link.reports[-1].prepared_operation == "op1")
    assert parts.follower.healthy()


async def test_lagging_behind_a_controller_that_is_heard_loses_health_and_catching_up_regains_it(parts: Parts) -> None:
    parts.clock.now += 3600.0
    parts.holder.broken["more"] = RuntimeError()
    parts.link.wish(generation=5, variant_id="more")
    await until(lambda: "stage more" in parts.holder.log)
    assert parts.follower.healthy()
    parts.clock.now += 60.1
    await until(lambda: not parts.follower.healthy())
    parts.holder.broken.clear()
    await until(parts.follower.healthy)
    assert parts.holder.generation == 5
    parts.clock.now += 3600.0
    parts.holder.broken["again"] = RuntimeError()
    parts.link.wish(generation=6, variant_id="again")
    await until(lambda: "stage again" in parts.holder.log)
    assert parts.follower.healthy()


async def test_silence_does_not_add_to_a_lag(parts: Parts) -> None:
    parts.holder.broken["more"] = RuntimeError()
    parts.link.wish(generation=5, variant_id="more")
    await until(lambda: "stage more" in parts.holder.log)
    parts.link.down = True
    await asyncio.sleep(0.12)
    parts.clock.now += 3600.0
    assert parts.follower.healthy()


async def test_a_stopped_follower_is_not_healthy() -> None:
    async with started(make_parts()) as parts:
        assert parts.follower.healthy()
    assert not parts.follower.healthy()


async def test_a_loop_that_died_is_not_healthy(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(generation: int, variant_id: str) -> None:
        raise KeyError(variant_id)

    monkeypatch.setattr(parts.holder, "commit", refuse)
    parts.link.wish(generation=2, variant_id="dense")
    await until(lambda: not parts.follower.healthy())


async def test_starting_waits_for_the_committed_variant() -> None:
    parts = make_parts()
    parts.holder.gate.clear()
    parts.link.wish(generation=3, variant_id="more")
    starting = asyncio.create_task(parts.follower.start(60.0))
    await until(lambda: parts.holder.log == ["stage more"])
    assert not starting.done()
    parts.holder.gate.set()
    assert await starting
    assert parts.holder.generation == 3
    await parts.follower.stop()


async def test_starting_without_a_controller_does_not_wait_for_it() -> None:
    parts = make_parts()
    parts.link.down = True
    assert not await parts.follower.start(60.0, patience_s=0.05)
    assert parts.follower.healthy()
    parts.link.down = False
    parts.link.wish(generation=2, variant_id="half")
    await until(lambda: parts.holder.generation == 2)
    await parts.follower.stop()


async def test_starting_fails_where_the_wanted_generation_is_not_reached_in_time() -> None:
    parts = make_parts()
    parts.holder.broken["more"] = RuntimeError()
    parts.link.wish(generation=3, variant_id="more")
    with pytest.raises(NotReady, match="r1"):
        await parts.follower.start(0.05)
    assert not parts.follower.healthy()


async def test_two_followers_and_a_real_controller_swap_and_roll_back(tmp_path: Path) -> None:
    control = make_control(tmp_path, poll_s=0.1)
    await control.controller.start()
    control.clock.now += 4.0
    first = await first_desired(control.controller, replica_id="r1", metrics_address="", timeout_s=60.0)
    holders = [FakeHolder(variant_id=first.variant_id, loaded={first.variant_id}) for _ in range(2)]
    followers = [
        Follower(
            replica_id=f"r{index}",
            metrics_address=f"127.0.0.1:{index}",
            link=control.controller,
            holder=holder,
            door=holder,
        )
        for index, holder in enumerate(holders)
    ]
    try:
        for follower in followers:
            await follower.start(60.0)
        operation = await control.controller.request_change(PruneSpec(sparsity=0.5))
        operation = await control.controller.wait(operation.id, 60.0)
        assert (operation.phase, [holder.generation for holder in holders]) == (Phase.COMMITTED, [2, 2])
        assert [peer.replica_id for peer in followers[0].peers] == ["control", "r0", "r1"]
        operation = await control.controller.request_rollback()
        operation = await control.controller.wait(operation.id, 60.0)
        assert (operation.generation, {holder.variant_id for holder in holders}) == (3, {first.variant_id})
    finally:
        for follower in followers:
            await follower.stop()
        await control.controller.stop()


async def test_a_governed_replica_says_every_moment_how_it_fares_and_no_other_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follower, "TELL_S", 0.005)
    parts = make_parts()
    parts.link.patience_s = 60.0
    async with started(parts):
        await parts.follower.settle(60.0)
        await asyncio.sleep(0.05)
        calm = len(parts.link.reports)
        parts.link.wish(policy=Policy(accuracy_floor=0.8, mode=Mode.AUTO, slo_p99_ms=50.0))
        await until(lambda: len(parts.link.reports) >= calm + 10)
    assert calm <= 2
    assert [report.load.queue_tokens for report in parts.link.reports[-10:] if report.load is not None] == [7] * 10


async def test_a_governed_replica_does_not_call_a_controller_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follower, "TELL_S", 0.001)
    monkeypatch.setattr(follower, "FIRST_RETRY_S", 0.2)
    parts = make_parts()
    parts.link.wish(policy=Policy(accuracy_floor=0.8, mode=Mode.AUTO, slo_p99_ms=50.0))
    async with started(parts):
        parts.link.down = True
        await until(lambda: not parts.follower._hears)
        asked = parts.link.asked
        await asyncio.sleep(0.05)
        assert parts.link.asked <= asked + 1


async def test_a_replica_hears_at_once_that_the_policy_s_cascade_is_off_and_that_it_is_on_again() -> None:
    parts = make_parts()
    async with started(parts):
        for off in (True, False):
            parts.link.wish(cascade_off=off)
            await until(lambda off=off: parts.holder.cascade_off is off)
