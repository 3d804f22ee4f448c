import asyncio
import logging
import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from pruning.spec import PruneSpec
from service.controller import VariantController
from service.errors import Conflict, NotFound, NotReady
from service.event_log import LoggedEvent
from service.operations import Phase
from service.policy_desk import PolicyDesk
from tests.service.control_parts import (
    DENSE,
    FLOOR,
    HALF,
    MORE,
    SOON_S,
    Control,
    ModelReplica,
    following,
    id_of,
    make_control,
    report_of,
    swap,
    until,
)


async def first_event(controller: VariantController) -> LoggedEvent:
    """The first event that a controller keeps."""
    event = await anext(controller.view.log.follow(0, silence_s=SOON_S))
    assert event is not None, "none came"
    return event


async def test_the_first_start_commits_the_initial_variant_durably(control: Control) -> None:
    status = control.controller.view.status()
    assert (status["generation"], status["variant"], status["sparsity"]) == (1, id_of(DENSE), 0.0)
    assert (status["accuracy"], status["accuracy_floor"]) == (0.9, FLOOR)
    assert status["previous_variant"] is None and status["operation"] is None
    stored = control.file.read()
    assert stored is not None and stored.committed.variant_id == id_of(DENSE)
    assert control.controller.healthy()


async def test_a_change_reaches_every_replica_and_waits_for_the_last(control: Control) -> None:
    first, second = ModelReplica(control.controller, "r1"), ModelReplica(control.controller, "r2")
    async with following(control.controller, first, second):
        operation = await swap(control, HALF)
        assert (operation.phase, operation.generation) == (Phase.COMMITTED, 2)
        assert {first.generation, second.generation} == {2}
        assert {first.variant_id, second.variant_id} == {id_of(HALF)}
        status = control.controller.view.status()
        assert [replica["generation"] for replica in status["replicas"]] == [2, 2]
        assert (status["previous_variant"], status["sparsity"]) == (id_of(DENSE), 0.5)
    assert control.value("swaps_total", outcome="committed") == 1
    assert control.value("swap_phase_duration_seconds_count", phase="commit") == 1
    assert control.value("controller_generation") == 2


async def test_the_same_wish_twice_is_one_change(control: Control) -> None:
    async with following(control.controller, ModelReplica(control.controller)):
        control.builder.gate.clear()
        first, second = await asyncio.gather(
            control.controller.request_change(HALF), control.controller.request_change(HALF)
        )
        control.builder.gate.set()
        done = await control.controller.wait(first.id, SOON_S)
        again = await control.controller.request_change(HALF)
    assert first.id == second.id == done.id == again.id
    assert control.builder.asked == [HALF]
    assert control.controller.view.status()["generation"] == 2


async def test_another_wish_meanwhile_is_refused_by_name(control: Control) -> None:
    control.builder.gate.clear()
    running = await control.controller.request_change(HALF)
    with pytest.raises(Conflict, match=running.id):
        await control.controller.request_change(MORE)
    assert (await control.controller.wait(running.id, 0.01)).phase is Phase.BUILDING


async def test_a_rollback_ends_a_running_build_and_another_change_may_follow(control: Control) -> None:
    control.builder.gate.clear()
    async with following(control.controller, ModelReplica(control.controller)):
        running = await control.controller.request_change(HALF)
        await until(lambda: control.builder.asked == [HALF])
        taken_back = await control.controller.request_rollback()
        assert (taken_back.id, taken_back.phase) == (running.id, Phase.ROLLED_BACK)
        await until(lambda: control.builder.cancelled == 1)
        control.builder.gate.set()
        assert (await swap(control, MORE)).generation == 2
    assert control.value("swaps_total", outcome="rolled_back") == 1


async def test_a_rollback_while_replicas_prepare_lets_them_drop_what_was_staged(control: Control) -> None:
    replica = ModelReplica(control.controller)
    await replica.ask()
    running = await control.controller.request_change(HALF)
    await until(lambda: control.controller.operation(running.id).phase is Phase.PREPARING)
    assert (await replica.ask()).staged is not None
    await control.controller.request_rollback()
    desired = await replica.ask()
    assert (desired.staged, desired.variant_id, desired.generation) == (None, id_of(DENSE), 1)


async def test_rollback_goes_back_without_building(control: Control) -> None:
    with pytest.raises(Conflict, match="no previous variant"):
        await control.controller.request_rollback()
    async with following(control.controller, ModelReplica(control.controller)):
        await swap(control, HALF)
        operation = await control.controller.request_rollback()
        operation = await control.controller.wait(operation.id, SOON_S)
    assert (operation.phase, operation.generation, operation.variant_id) == (Phase.COMMITTED, 3, id_of(DENSE))
    assert control.builder.asked == [HALF]


async def test_draining_is_told_to_replicas_and_refuses_changes(control: Control) -> None:
    await control.controller.sync(report_of("a", inflight=2), -1)
    await control.controller.sync(report_of("b", inflight=3), -1)
    assert control.controller.view.inflight() == 5
    await control.controller.drain()
    with pytest.raises(NotReady, match="stopping"):
        await control.controller.request_change(HALF)


async def test_unknown_operations_are_not_found(control: Control) -> None:
    with pytest.raises(NotFound, match="nope"):
        control.controller.operation("nope")
    with pytest.raises(NotFound, match="nope"):
        await control.controller.wait("nope", SOON_S)


async def test_before_it_has_started_a_controller_is_not_ready(tmp_path: Path) -> None:
    controller = make_control(tmp_path).controller
    assert not controller.healthy()
    with pytest.raises(NotReady):
        controller.view.status()
    with pytest.raises(NotReady):
        await controller.sync(report_of(), -1)


async def test_dense_by_another_name_is_the_dense_variant_that_is_served(control: Control) -> None:
    operation = await swap(control, PruneSpec(sparsity=0.0, scorer="taylor"))
    assert (operation.phase, operation.generation) == (Phase.COMMITTED, 1)
    assert control.builder.asked == []


async def test_a_caller_that_goes_away_does_not_interrupt_a_transition(control: Control) -> None:
    asked = asyncio.create_task(control.controller.request_change(HALF))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await until(lambda: control.controller.view.status()["operation"] is not None)
    stored = control.file.read()
    assert stored is not None and stored.operation is not None and stored.operation.spec == HALF


async def test_a_caller_that_goes_away_leaves_no_policy_on_disk_that_does_not_hold(control: Control) -> None:
    begun, ready, write = asyncio.Event(), threading.Event(), PolicyDesk._write
    loop = asyncio.get_running_loop()

    def write_late(desk: PolicyDesk, *values: Any) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert ready.wait(SOON_S)
        write(desk, *values)

    with patch.object(PolicyDesk, "_write", write_late):
        asked = asyncio.create_task(control.controller.change_policy({"shadow_fraction": 0.5}))
        await begun.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        ready.set()
        await until(lambda: control.controller.view.policy().shadow_fraction == 0.5, SOON_S)
    assert (await first_event(control.controller)).data["shadow_fraction"] == 0.5


async def test_events_of_a_controller_are_numbered_above_those_of_the_one_before(
    control: Control, tmp_path: Path
) -> None:
    await control.controller.change_policy({"shadow_fraction": 0.5})
    before = await first_event(control.controller)
    await control.controller.stop()
    control.clock.now += 1.0
    reborn = make_control(tmp_path, clock=control.clock)
    await reborn.controller.start()
    await reborn.controller.change_policy({"shadow_fraction": 0.4})
    assert (await first_event(reborn.controller)).number > before.number
    await reborn.controller.stop()


async def test_every_phase_leaves_one_audit_line(control: Control, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "service.audit")
    async with following(control.controller, ModelReplica(control.controller)):
        operation = await swap(control, HALF)
    lines = [record.getMessage() for record in caplog.records if operation.id in record.getMessage()]
    assert [line.split("phase=")[1].split()[0] for line in lines] == ["building", "preparing", "committed"]
