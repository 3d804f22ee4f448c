import asyncio

from service.operations import Cause, Phase
from tests.service.control_parts import (
    DENSE,
    HALF,
    MORE,
    SOON_S,
    Control,
    ModelReplica,
    following,
    id_of,
    report_of,
    swap,
    until,
)


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


async def test_dead_replicas_leave_the_targets(control: Control) -> None:
    await control.controller.sync(report_of("a"), -1)
    assert [target["labels"]["replica"] for target in control.controller.view.targets()] == ["control", "a"]
    for _ in range(4):
        control.clock.now += 1.0
        await control.controller.tick()
    assert [target["labels"]["replica"] for target in control.controller.view.targets()] == ["control"]
    assert control.value("controller_replicas") == 0


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
