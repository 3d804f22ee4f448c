"""The governor in the controller: real operations of a real rollout, with the replica's load in the test's hands."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from pruning.spec import PruneSpec
from pruning.variants import VariantStore
from service.errors import Conflict
from service.governor.moves import Why
from service.operations import Asker, Cause, Operation, Phase
from service.policy import Mode, Policy
from service.policy_desk import PolicyDesk
from tests.service.control_parts import DENSE, Control, ModelReplica, choice_of, id_of, make_control, put, until
from tests.service.governor.sightings import load

TICK_S = 0.25
HALF, MORE, MOST = (PruneSpec(sparsity=sparsity) for sparsity in (0.5, 0.7, 0.9))
LADDER = {DENSE: 1.0, HALF: 2.0, MORE: 3.0, MOST: 4.0}
"""Speed of every level in units of dense."""
DENSE_PER_S = 10_000
"""Tokens a second that the replica answers at the dense level."""


class Governed:
    """A controller in mode auto and one replica, which gets a load and answers what its level holds of it."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.controller = control.controller
        self.replica = ModelReplica(control.controller)
        self.replica.load = load(control.clock.now)

    async def begin(self, **policy: Any) -> None:
        await self.start()
        await self.controller.change_policy({"mode": "auto", "slo_p99_ms": 200, **policy})

    async def start(self) -> None:
        """Start the controller and let the time pass in which it commits nothing."""
        await self.controller.start()
        await self.obey()
        for _ in range(4):
            self.control.clock.now += 1.0
            await self.obey()
            await self.controller.tick()

    @property
    def level(self) -> PruneSpec:
        return next(spec for spec in LADDER if id_of(spec) == self.replica.variant_id)

    async def obey(self) -> None:
        """Report, take what is wanted, and report that."""
        for _ in range(3):
            self.replica.version = -1
            desired = await self.replica.ask()
            if desired.staged is not None and self.replica.failure is not None:
                self.replica.failed = desired.staged.operation_id
            elif desired.staged is not None:
                self.replica.prepared = desired.staged.operation_id
            self.replica.generation, self.replica.variant_id = desired.generation, desired.variant_id

    async def tick(self, tokens_per_s: float) -> None:
        """Let one tick pass under so much load, of a hundred tokens a request."""
        known = self.replica.load
        assert known is not None
        holds = DENSE_PER_S * LADDER[self.level]
        busy = min(1.0, tokens_per_s / holds)
        came = tokens_per_s * TICK_S
        waits = max(0.0, known.queue_tokens + came - holds * TICK_S)
        refused = max(0, round((waits - holds) / 100))
        self.control.clock.now += TICK_S
        self.replica.load = replace(
            known,
            at_s=known.at_s + TICK_S,
            accepted=known.accepted + round(came / 100) - refused,
            accepted_tokens=known.accepted_tokens + round(came) - 100 * refused,
            refused=known.refused + refused,
            answered_tokens=known.answered_tokens + round(min(came + known.queue_tokens, holds * TICK_S)),
            busy_s=known.busy_s + busy * TICK_S,
            model_s=known.model_s + busy * TICK_S,
            queue_tokens=round(min(waits, holds)),
            queue_s=min(waits, holds) / holds,
            p99_s=0.05 + waits / holds,
            model_p99_s=0.05 + waits / holds,
        )
        await self.obey()
        await self.controller.tick()
        await self.obey()

    async def run(self, seconds: float, tokens_per_s: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            await self.tick(tokens_per_s)

    def operations(self) -> list[Operation]:
        state = self.control.file.read()
        assert state is not None
        return [*state.history, *([state.operation] if state.operation else [])]

    def status(self) -> dict[str, Any]:
        return self.controller.view.status()


@pytest.fixture
async def governed(tmp_path: Path) -> AsyncIterator[Governed]:
    store = VariantStore(tmp_path)
    for spec, speed in LADDER.items():
        put(store, spec, accuracy=0.9 - spec.sparsity / 100, items_per_s=250 * speed)
    control = make_control(tmp_path, tick_s=60.0, poll_s=0.0, ladder=tuple(id_of(spec) for spec in LADDER))
    governed = Governed(control)
    yield governed
    await control.controller.stop()


async def test_an_operator_who_turns_the_dial_alone_is_not_helped(governed: Governed) -> None:
    await governed.begin()
    await governed.controller.change_policy({"mode": "manual"})
    await governed.run(5, 30_000)
    assert governed.operations() == []
    assert governed.status()["governor"] is None
    assert governed.control.value("governor_active") == 0


async def test_a_spike_is_an_operation_with_its_reason_and_calm_is_another(
    governed: Governed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.audit")
    await governed.begin()
    await governed.run(3, 4_000)
    assert governed.operations() == []
    await governed.run(1, 20_000)
    (spike,) = governed.operations()
    assert (spike.asked_by, spike.phase, spike.generation) == (Asker.GOVERNOR, Phase.COMMITTED, 2)
    assert governed.level == MORE and spike.reason is not None and "20000 tokens a second come" in spike.reason
    assert spike.reason in caplog.text
    assert governed.control.builder.asked == []
    await governed.run(30, 4_000)
    assert governed.level == DENSE
    assert "calm" in (governed.operations()[-1].reason or "")


async def test_what_the_governor_sees_and_does_is_shown(governed: Governed) -> None:
    await governed.begin()
    await governed.run(2, 20_000)
    shown = governed.status()["governor"]
    assert shown["decision"] == "stay" and shown["reason"] and shown["arrived_tokens_per_s"] == 20_000
    assert [level["sparsity"] for level in shown["levels"]] == [spec.sparsity for spec in LADDER]
    assert shown["levels"][0]["holds_tokens_per_s"] == pytest.approx(DENSE_PER_S, rel=0.3)
    assert governed.control.value("governor_active") == 1
    assert governed.control.value("governor_level") == 0.7
    reasons = [governed.control.value("governor_moves_total", direction="sparser", why=why) for why in Why]
    assert sum(count or 0 for count in reasons) == 1
    assert governed.control.value("governor_ticks_total", why="steady") is not None


async def test_an_operators_change_is_refused_while_the_governor_turns_the_dial_with_what_to_do(
    governed: Governed,
) -> None:
    await governed.begin()
    with pytest.raises(Conflict, match='"mode": "manual"'):
        await governed.controller.request_change(HALF)
    await governed.controller.change_policy({"mode": "manual"})
    assert (await governed.controller.request_change(HALF)).phase is Phase.BUILDING


async def test_an_operators_rollback_works_at_once_and_the_governor_rests_from_then_on(governed: Governed) -> None:
    await governed.begin()
    await governed.run(2, 20_000)
    await governed.controller.request_rollback()
    await governed.obey()
    assert governed.level == DENSE
    assert governed.controller.view.policy().mode is Mode.MANUAL
    await governed.run(5, 20_000)
    assert governed.level == DENSE


async def test_a_move_that_was_decided_before_an_operator_took_over_comes_to_nothing(governed: Governed) -> None:
    await governed.begin()
    await governed.run(2, 20_000)
    controller, change = governed.controller, PolicyDesk.change

    async def move() -> None:
        with pytest.raises(Conflict, match="An operator has taken over"):
            await controller._request_level(choice_of(HALF), "decided a moment ago")

    async def change_late(desk: PolicyDesk, members: Any, expected: str | None = None) -> Policy:
        await governed.obey()
        await move()
        return await change(desk, members, expected)

    with patch.object(PolicyDesk, "change", change_late):
        await controller.request_rollback()
    await move()
    assert governed.level == DENSE


async def test_an_operator_who_does_not_wait_for_a_rollback_takes_over_all_the_same(governed: Governed) -> None:
    await governed.begin()
    await governed.run(2, 20_000)
    asked = asyncio.create_task(governed.controller.request_rollback())
    await asyncio.sleep(0)
    asked.cancel()
    await until(lambda: governed.controller.view.policy().mode is Mode.MANUAL, 10.0)


async def test_a_level_that_a_replica_cannot_load_is_left_out(governed: Governed) -> None:
    await governed.begin()
    governed.replica.failure = "no memory"
    while not governed.operations():
        await governed.tick(20_000)
    failed = governed.operations()[-1]
    assert (failed.error_type, failed.variant_id) == (Cause.REPLICA, id_of(MORE))
    governed.replica.failure = None
    await governed.run(2, 20_000)
    assert governed.level == MOST


async def test_the_bounds_and_the_floor_of_the_policy_hold_at_once(governed: Governed) -> None:
    await governed.begin(max_sparsity=0.5)
    await governed.run(2, 40_000)
    assert governed.level == HALF
    assert governed.status()["governor"]["why"] == "limit"
    await governed.controller.change_policy({"max_sparsity": 0.9, "accuracy_floor": 0.892})
    await governed.run(3, 40_000)
    assert governed.level == MORE
    await governed.controller.change_policy({"accuracy_floor": 0.898})
    await governed.run(1, 40_000)
    assert governed.level == DENSE
    assert "no level that the policy lets answer" in (governed.operations()[-1].reason or "")


async def test_a_level_off_the_ladder_is_left_for_the_nearest(governed: Governed) -> None:
    await governed.start()
    operation = await governed.controller.request_change(PruneSpec(sparsity=0.6))
    await until(lambda: governed.controller.operation(operation.id).phase is Phase.PREPARING)
    await governed.obey()
    assert governed.replica.variant_id == id_of(PruneSpec(sparsity=0.6))
    await governed.controller.change_policy({"mode": "auto", "slo_p99_ms": 200})
    for number in range(3):
        governed.replica.load = load(governed.control.clock.now + number)
        await governed.obey()
        await governed.controller.tick()
        await governed.obey()
    assert governed.level == MORE


async def test_while_another_operation_runs_the_governor_asks_for_nothing(governed: Governed) -> None:
    await governed.begin()
    await governed.controller.change_policy({"mode": "manual"})
    governed.control.builder.gate.clear()
    running = await governed.controller.request_change(HALF)
    await governed.controller.change_policy({"mode": "auto"})
    await governed.run(2, 20_000)
    assert [operation.id for operation in governed.operations()] == [running.id]
    assert governed.status()["governor"]["why"] == "waiting"


async def test_a_controller_that_comes_back_governs_on(governed: Governed, tmp_path: Path) -> None:
    await governed.begin()
    await governed.run(2, 20_000)
    await governed.controller.stop()
    again = Governed(make_control(tmp_path, tick_s=60.0, poll_s=0.0, ladder=tuple(id_of(spec) for spec in LADDER)))
    again.control.clock.now = governed.control.clock.now
    again.replica.generation, again.replica.variant_id = governed.replica.generation, governed.replica.variant_id
    await again.start()
    assert again.level == MORE
    await again.run(40, 2_000)
    assert again.level == DENSE
    await again.controller.stop()
