import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from pruning.errors import ChecksumError
from pruning.spec import PruneSpec
from service import follower
from service.follower import Follower
from service.newborn import first_desired
from service.operations import Phase
from service.policy import Mode, Policy
from tests.service.control_parts import make_control, until
from tests.service.follower_parts import STAGED, FakeHolder, Parts, make_parts, started


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


async def test_draining_is_passed_on_once_told(parts: Parts) -> None:
    assert not parts.holder.draining
    parts.link.wish(draining=True)
    await until(lambda: parts.holder.draining)


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


async def test_what_requests_may_not_choose_reaches_the_holder(parts: Parts) -> None:
    parts.link.wish(distrusted=frozenset({"half"}))
    await until(lambda: parts.holder.distrusted == {"half"})
    parts.link.wish(distrusted=frozenset())
    await until(lambda: parts.holder.distrusted == frozenset())
