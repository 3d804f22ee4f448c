import asyncio

import pytest

from tests.service.control_parts import until
from tests.service.follower_parts import STAGED, Parts, make_parts, started


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
