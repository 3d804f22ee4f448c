import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

import service.gathering
from service.gathering import Gathering
from tests.service.batcher_parts import BUDGET, Bench, bench, requests_of, settle


@dataclass
class Patient(Gathering):
    """Waits as after a batch of ``batch_s`` seconds."""

    batch_s: float = 60.0

    def answered(self, requests: int, seconds: float, now_s: float) -> None:
        Gathering.answered(self, requests, self.batch_s, now_s)


async def waiting_behind_an_answered_one(b: Bench) -> asyncio.Task[Any]:
    """Return request 1, which came while request 0 ran; that one has its answer."""
    first = b.send(0, 1)
    await settle()
    second = b.send(1, 1)
    await settle()
    b.executor.step()
    await first
    return second


async def test_a_batch_waits_for_those_who_were_answered_a_moment_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.gathering, "LONGEST_S", 30.0)
    async with bench() as b:
        b.batcher._gathering, b.batcher._schedule.worth_a_core = Patient(), BUDGET
        second = await waiting_behind_an_answered_one(b)
        await settle()
        assert not b.executor.waiting
        again = b.send(0, 1)
        await settle()
        b.executor.step()
        await asyncio.gather(second, again)
        assert [requests_of(batch) for batch in b.model.batches] == [[0], [1, 0]]


@pytest.mark.parametrize(("enough", "batch_s"), [(1, 60.0), (BUDGET, 0.0)])
async def test_a_batch_does_not_wait_where_enough_waits_or_where_the_last_one_took_no_time(
    enough: int, batch_s: float
) -> None:
    async with bench() as b:
        b.batcher._gathering, b.batcher._schedule.worth_a_core = Patient(batch_s=batch_s), enough
        second = await waiting_behind_an_answered_one(b)
        await settle()
        b.executor.step()
        await second


async def test_a_wait_ends_by_itself() -> None:
    async with bench() as b:
        b.batcher._gathering, b.batcher._schedule.worth_a_core = Patient(), BUDGET
        second = await waiting_behind_an_answered_one(b)
        async with asyncio.timeout(10):
            while not b.executor.waiting:
                await asyncio.sleep(0.001)
        b.executor.step()
        await second
