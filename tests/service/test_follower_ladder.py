import asyncio

import pytest

from pruning.errors import ChecksumError
from service.protocol import Peer
from tests.service.control_parts import until
from tests.service.follower_parts import STAGED, Parts


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
