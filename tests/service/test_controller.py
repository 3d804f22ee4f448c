import asyncio
import errno
import logging
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from pruning.errors import StoreError
from pruning.spec import PruneSpec
from pruning.variants import VariantStore
from service.controller import VariantController
from service.errors import Conflict, NotFound, NotReady
from service.event_log import LoggedEvent
from service.floor import BelowFloor
from service.operations import Cause, Operation, Phase, RolloutState
from service.policy_desk import PolicyDesk
from service.protocol import Refusal
from service.state import StateDamaged, StateFile, StateUnwritable
from tests.service.control_parts import (
    DENSE,
    FLOOR,
    Control,
    ModelReplica,
    id_of,
    make_control,
    put,
    report_of,
    until,
)

HALF, MORE = PruneSpec(sparsity=0.5), PruneSpec(sparsity=0.7)
SOON_S = 60.0
"""A wait that no test uses up."""


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


async def first_event(controller: VariantController) -> LoggedEvent:
    """The first event that a controller keeps."""
    event = await anext(controller.view.log.follow(0, silence_s=SOON_S))
    assert event is not None, "none came"
    return event


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    """A started controller, past its first lease."""
    control = make_control(tmp_path)
    await control.controller.start()
    control.clock.now += 4.0
    yield control
    await control.controller.stop()


async def swap(control: Control, spec: PruneSpec) -> Operation:
    operation = await control.controller.request_change(spec)
    return await control.controller.wait(operation.id, SOON_S)


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


async def test_a_build_is_told_every_variant_that_may_still_be_loaded(tmp_path: Path) -> None:
    ladder = PruneSpec(sparsity=0.3)
    control = make_control(tmp_path, ladder=(id_of(DENSE), id_of(ladder)))
    put(VariantStore(tmp_path), ladder)
    await control.controller.start()
    control.clock.now += 4.0
    async with following(control.controller, ModelReplica(control.controller)):
        for spec in (HALF, MORE, PruneSpec(sparsity=0.6)):
            await swap(control, spec)
    always = {id_of(DENSE), id_of(ladder)}
    assert control.builder.in_use == [always, always | {id_of(HALF)}, always | {id_of(HALF), id_of(MORE)}]
    await control.controller.stop()


async def test_a_variant_below_the_floor_touches_no_replica(control: Control) -> None:
    replica = ModelReplica(control.controller)
    control.builder.accuracy = 0.7
    async with following(control.controller, replica):
        operation = await swap(control, HALF)
    assert (operation.phase, operation.error_type) == (Phase.FAILED, Cause.ACCURACY_FLOOR)
    assert replica.prepared is None and replica.generation == 1
    assert control.value("swaps_total", outcome="failed") == 1


async def test_a_replica_that_cannot_prepare_rolls_everyone_back(control: Control) -> None:
    good, bad = ModelReplica(control.controller, "good"), ModelReplica(control.controller, "bad")
    bad.failure = "out of memory"
    async with following(control.controller, good, bad):
        operation = await swap(control, HALF)
    assert (operation.phase, operation.error) == (Phase.ROLLED_BACK, "replica bad: out of memory")
    assert good.generation == bad.generation == 1
    assert control.value("swaps_total", outcome="rolled_back") == 1


async def test_a_replica_that_dies_while_it_prepares_does_not_stop_the_swap(control: Control) -> None:
    dying, living = ModelReplica(control.controller, "dying"), ModelReplica(control.controller, "living")
    await dying.ask()
    async with following(control.controller, living):
        operation = await control.controller.request_change(HALF)
        await until(lambda: living.prepared == operation.id)
        assert (await control.controller.wait(operation.id, 0.05)).phase is Phase.PREPARING
        await control.controller.tick()
        for _ in range(4):
            control.clock.now += 1.0
            await control.controller.sync(report_of("living", prepared=operation.id), -1)
            await control.controller.tick()
        assert (await control.controller.wait(operation.id, SOON_S)).phase is Phase.COMMITTED


async def test_a_late_replica_ends_the_change_at_its_deadline(control: Control) -> None:
    silent = ModelReplica(control.controller, "slow")
    await silent.ask()
    operation = await control.controller.request_change(HALF)
    await until(lambda: control.controller.operation(operation.id).phase is Phase.PREPARING)
    for _ in range(25):
        control.clock.now += 1.4
        await control.controller.sync(report_of("slow"), -1)
        await control.controller.tick()
    operation = await control.controller.wait(operation.id, SOON_S)
    assert (operation.phase, operation.error_type) == (Phase.ROLLED_BACK, Cause.DEADLINE)
    assert operation.error is not None and "slow" in operation.error


async def test_a_build_beyond_its_deadline_is_cancelled(control: Control) -> None:
    control.builder.gate.clear()
    operation = await control.controller.request_change(HALF)
    await until(lambda: bool(control.builder.asked))
    control.clock.now += 61.0
    operation = await control.controller.wait(operation.id, SOON_S)
    assert (operation.phase, operation.error_type) == (Phase.FAILED, Cause.DEADLINE)
    await until(lambda: control.builder.cancelled == 1)


async def test_a_build_that_is_refused_is_a_failed_operation_of_its_cause(control: Control) -> None:
    control.builder.refusal = Refusal(message="the disk is full; free space", cause=Cause.STORAGE)
    async with following(control.controller, ModelReplica(control.controller)):
        operation = await swap(control, HALF)
        assert (operation.phase, operation.error_type) == (Phase.FAILED, Cause.STORAGE)
        assert operation.error == "the disk is full; free space"
        control.builder.refusal = None
        assert (await swap(control, HALF)).phase is Phase.COMMITTED


async def test_a_build_that_raises_is_a_failed_operation(control: Control) -> None:
    control.builder.error = ZeroDivisionError("private")
    async with following(control.controller, ModelReplica(control.controller)):
        operation = await swap(control, HALF)
        assert (operation.phase, operation.error_type) == (Phase.FAILED, Cause.INTERNAL)
        assert operation.error is not None and "its log says what" in operation.error
        control.builder.error = None
        assert (await swap(control, HALF)).phase is Phase.COMMITTED


async def test_a_long_poll_returns_on_news_and_otherwise_when_its_time_is_up(control: Control) -> None:
    replica = ModelReplica(control.controller)
    first = await replica.ask()
    assert (await replica.ask()) == first
    question = asyncio.create_task(replica.ask())
    await asyncio.sleep(0)
    await control.controller.drain()
    assert (await question).draining


async def test_newborn_replicas_are_told_but_not_waited_for(control: Control) -> None:
    async with following(control.controller, ModelReplica(control.controller)):
        newborn = ModelReplica(control.controller, "new")
        newborn.variant_id = ""
        desired = await newborn.ask()
        assert (desired.generation, desired.variant_id) == (1, id_of(DENSE))
        assert (await swap(control, HALF)).phase is Phase.COMMITTED


async def test_draining_is_told_to_replicas_and_refuses_changes(control: Control) -> None:
    await control.controller.sync(report_of("a", inflight=2), -1)
    await control.controller.sync(report_of("b", inflight=3), -1)
    assert control.controller.view.inflight() == 5
    await control.controller.drain()
    with pytest.raises(NotReady, match="stopping"):
        await control.controller.request_change(HALF)


async def test_dead_replicas_leave_the_targets(control: Control) -> None:
    await control.controller.sync(report_of("a"), -1)
    assert [target["labels"]["replica"] for target in control.controller.view.targets()] == ["control", "a"]
    for _ in range(4):
        control.clock.now += 1.0
        await control.controller.tick()
    assert [target["labels"]["replica"] for target in control.controller.view.targets()] == ["control"]
    assert control.value("controller_replicas") == 0


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


async def test_a_restart_comes_back_on_the_last_commit(control: Control, tmp_path: Path) -> None:
    async with following(control.controller, ModelReplica(control.controller)):
        operation = await swap(control, HALF)
        last = await control.controller.sync(report_of("r1", generation=2, spec=HALF), -1)
    await control.controller.stop()
    reborn = make_control(tmp_path)
    await reborn.controller.start()
    try:
        status = reborn.controller.view.status()
        assert (status["generation"], status["variant"]) == (2, id_of(HALF))
        assert reborn.controller.operation(operation.id) == operation
        desired = await reborn.controller.sync(report_of("r1", generation=2, spec=HALF), last.version)
        assert desired.version > last.version
    finally:
        await reborn.controller.stop()


async def test_a_build_cut_off_by_a_restart_is_started_again(control: Control, tmp_path: Path) -> None:
    control.builder.gate.clear()
    operation = await control.controller.request_change(HALF)
    await control.controller.stop()
    reborn = make_control(tmp_path)
    await reborn.controller.start()
    try:
        async with following(reborn.controller, ModelReplica(reborn.controller)):
            await until(lambda: reborn.controller.operation(operation.id).phase is Phase.PREPARING)
            reborn.clock.now += 3.0
            assert (await reborn.controller.wait(operation.id, SOON_S)).generation == 2
    finally:
        await reborn.controller.stop()


async def test_a_preparation_is_resumed_only_after_one_lease(control: Control, tmp_path: Path) -> None:
    await control.controller.sync(report_of("a"), -1)
    operation = await control.controller.request_change(HALF)
    await until(lambda: control.controller.operation(operation.id).phase is Phase.PREPARING)
    await control.controller.stop()
    reborn = make_control(tmp_path)
    reborn.clock.now = control.clock.now
    await reborn.controller.start()
    try:
        await reborn.controller.sync(report_of("a", prepared=operation.id), -1)
        assert (await reborn.controller.wait(operation.id, 0.05)).phase is Phase.PREPARING
        reborn.clock.now += 3.0
        await until(lambda: reborn.controller.operation(operation.id).phase is Phase.COMMITTED)
        assert reborn.builder.asked == []
    finally:
        await reborn.controller.stop()


async def test_a_request_that_cannot_be_written_changes_nothing(control: Control) -> None:
    before = control.file.read()
    with full_disk(), pytest.raises(NotReady, match="No space left on device"):
        await control.controller.request_change(HALF)
    assert control.file.read() == before
    assert control.controller.view.status()["operation"] is None
    assert control.builder.asked == []


async def test_a_full_disk_in_mid_change_ends_it_and_the_old_variant_goes_on(control: Control) -> None:
    replica = ModelReplica(control.controller)
    async with following(control.controller, replica):
        control.builder.gate.clear()
        operation = await control.controller.request_change(HALF)
        with full_disk():
            control.builder.gate.set()
            operation = await control.controller.wait(operation.id, SOON_S)
            assert (operation.phase, operation.error_type) == (Phase.FAILED, Cause.STORAGE)
            assert operation.error is not None and "state.json" in operation.error
            assert control.controller.view.status()["generation"] == replica.generation == 1
            stored = control.file.read()
            assert stored is not None and stored.phase is Phase.BUILDING
        await until(lambda: (state := control.file.read()) is not None and state.phase is None)
        assert control.controller.healthy()
        assert (await swap(control, HALF)).phase is Phase.COMMITTED


async def test_a_commit_that_cannot_be_written_is_never_seen_by_a_replica(control: Control) -> None:
    replica = ModelReplica(control.controller)
    await replica.ask()
    operation = await control.controller.request_change(HALF)
    await until(lambda: control.controller.operation(operation.id).phase is Phase.PREPARING)
    with full_disk():
        answers = await asyncio.gather(
            *(control.controller.sync(report_of(f"r{index}", prepared=operation.id), -1) for index in range(1, 9))
        )
        assert {(desired.generation, desired.staged) for desired in answers} == {(1, None)}
        assert control.controller.operation(operation.id).phase is Phase.ROLLED_BACK
    stored = control.file.read()
    assert stored is not None and stored.generation == 1


async def test_a_store_that_became_read_only_still_serves_what_was_committed(control: Control, tmp_path: Path) -> None:
    await control.controller.stop()
    reborn = make_control(tmp_path)
    with full_disk():
        await reborn.controller.start()
        try:
            assert (await reborn.controller.sync(report_of(), -1)).variant_id == id_of(DENSE)
        finally:
            await reborn.controller.stop()


async def test_the_first_start_needs_a_disk_and_a_variant(tmp_path: Path) -> None:
    control = make_control(tmp_path)
    with full_disk(), pytest.raises(StateUnwritable):
        await control.controller.start()
    (tmp_path / "variants" / id_of(DENSE) / "manifest.json").unlink()
    with pytest.raises(StoreError, match=id_of(DENSE)):
        await control.controller.start()


async def test_a_first_start_below_the_floor_is_refused_with_both_numbers_and_commits_nothing(tmp_path: Path) -> None:
    control = make_control(tmp_path, floor=0.95)
    with pytest.raises(BelowFloor, match=r"sparsity 0 .* 0\.9000 is below the floor 0\.9500; lower the floor"):
        await control.controller.start()
    assert control.file.read() is None


async def test_a_committed_variant_below_a_raised_floor_is_served_and_said(
    control: Control, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(control.controller, ModelReplica(control.controller)):
        await swap(control, HALF)
    await control.controller.stop()
    assert not caplog.messages
    reborn = make_control(tmp_path, floor=0.95)
    await reborn.controller.start()
    try:
        assert reborn.controller.view.status()["variant"] == id_of(HALF)
        (words,) = caplog.messages
        assert id_of(HALF) in words and "0.9000 is below the floor 0.9500" in words
        operation = await reborn.controller.request_change(HALF)
        operation = await reborn.controller.wait(operation.id, SOON_S)
        assert (operation.phase, operation.error_type) == (Phase.FAILED, Cause.ACCURACY_FLOOR)
        assert reborn.controller.view.status()["generation"] == 2
    finally:
        await reborn.controller.stop()


async def test_a_floor_that_is_raised_while_replicas_prepare_is_held(control: Control) -> None:
    await control.controller.sync(report_of("a"), -1)
    await control.controller.change_policy({"accuracy_floor": 0.8})
    control.builder.accuracy = 0.86
    operation = await control.controller.request_change(HALF)
    await until(lambda: control.controller.operation(operation.id).phase is Phase.PREPARING)
    await control.controller.change_policy({"accuracy_floor": 0.88})
    await control.controller.sync(report_of("a", prepared=operation.id), -1)
    await until(lambda: control.controller.operation(operation.id).finished)
    assert control.controller.operation(operation.id).error_type is Cause.ACCURACY_FLOOR
    assert control.controller.view.served()[0] == 1


async def test_a_preparation_below_a_raised_floor_is_given_up_at_the_restart(control: Control, tmp_path: Path) -> None:
    await control.controller.sync(report_of("a"), -1)
    operation = await control.controller.request_change(HALF)
    await until(lambda: control.controller.operation(operation.id).phase is Phase.PREPARING)
    await control.controller.stop()
    reborn = make_control(tmp_path, floor=0.95)
    await reborn.controller.start()
    try:
        ended = reborn.controller.operation(operation.id)
        assert (ended.phase, ended.error_type) == (Phase.ROLLED_BACK, Cause.ACCURACY_FLOOR)
        desired = await reborn.controller.sync(report_of("a", prepared=operation.id), -1)
        assert (desired.generation, desired.staged) == (1, None)
    finally:
        await reborn.controller.stop()


async def test_a_variant_of_other_rows_is_said_and_made_anew_when_its_level_is_asked_for_again(
    control: Control, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(control.controller, ModelReplica(control.controller)):
        await swap(control, HALF)
    await control.controller.stop()
    put(VariantStore(tmp_path), HALF, edition="new")
    reborn = make_control(tmp_path, ladder=(id_of(DENSE), "new" + id_of(HALF)))
    reborn.builder.edition = "new"
    await reborn.controller.start()
    reborn.clock.now += 4.0
    replica = ModelReplica(reborn.controller)
    replica.generation, replica.variant_id = 2, id_of(HALF)
    try:
        (words,) = caplog.messages
        assert id_of(HALF) in words and "other rows" in words
        async with following(reborn.controller, replica):
            operation = await swap(reborn, HALF)
            assert (operation.phase, operation.generation) == (Phase.COMMITTED, 3)
            assert replica.variant_id == "new" + id_of(HALF)
            assert (await swap(reborn, HALF)).id == operation.id
    finally:
        await reborn.controller.stop()


async def test_a_variant_of_an_earlier_run_is_claimed_only_once_a_build_has_given_it(
    control: Control, tmp_path: Path
) -> None:
    async with following(control.controller, ModelReplica(control.controller)):
        first = await swap(control, HALF)
    await control.controller.stop()
    reborn = make_control(tmp_path)
    await reborn.controller.start()
    try:
        again = await swap(reborn, HALF)
        assert (again.phase, again.generation) == (Phase.COMMITTED, 2)
        assert again.id != first.id and reborn.builder.asked == [HALF]
        assert (await swap(reborn, HALF)).id == again.id
        assert reborn.builder.asked == [HALF]
        assert reborn.controller.view.status()["previous_variant"] == id_of(DENSE)
    finally:
        await reborn.controller.stop()


async def test_dense_by_another_name_is_the_dense_variant_that_is_served(control: Control) -> None:
    operation = await swap(control, PruneSpec(sparsity=0.0, scorer="taylor"))
    assert (operation.phase, operation.generation) == (Phase.COMMITTED, 1)
    assert control.builder.asked == []


async def test_a_later_failure_does_not_end_the_wait_for_an_earlier_commit(control: Control) -> None:
    replica = ModelReplica(control.controller)
    desired = await replica.ask()
    operation = await control.controller.request_change(HALF)
    while desired.staged is None:
        desired = await replica.ask()
    replica.prepared = operation.id
    desired = await replica.ask()
    assert desired.generation == 2
    control.builder.accuracy = 0.5
    refused = await swap(control, MORE)
    assert refused.phase is Phase.FAILED
    waiting = asyncio.create_task(control.controller.wait(operation.id, SOON_S))
    assert not (await asyncio.wait([waiting], timeout=0.1))[0]
    assert control.value("swap_phase_duration_seconds_count", phase="commit") == 0
    replica.generation, replica.variant_id = 2, id_of(HALF)
    await replica.ask()
    assert (await waiting).generation == 2
    assert control.value("swap_phase_duration_seconds_count", phase="commit") == 1


async def test_a_commit_whose_folder_could_not_be_synced_is_told_and_written_again(
    control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    written: list[int] = []
    write = StateFile.write

    def unsynced(self: StateFile, state: RolloutState) -> bool:
        written.append(state.version)
        write(self, state)
        return False

    replica = ModelReplica(control.controller)
    async with following(control.controller, replica):
        with patch.object(StateFile, "write", unsynced):
            assert (await swap(control, HALF)).phase is Phase.COMMITTED
            assert replica.generation == 2
            await until(lambda: written.count(written[-1]) > 1)
    assert "state.json is written, but its folder could not be synced" in caplog.text


async def test_a_damaged_state_file_is_refused_and_kept(control: Control, tmp_path: Path) -> None:
    await control.controller.stop()
    control.file.path.write_bytes(control.file.path.read_bytes()[:-20])
    damaged = control.file.path.read_bytes()
    with pytest.raises(StateDamaged, match=r"state\.json"):
        await make_control(tmp_path).controller.start()
    assert control.file.path.read_bytes() == damaged


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
