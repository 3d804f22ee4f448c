from pathlib import Path

import pytest

from service.floor import BelowFloor
from service.operations import Cause, Phase
from tests.service.control_parts import (
    HALF,
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


async def test_a_variant_below_the_floor_touches_no_replica(control: Control) -> None:
    replica = ModelReplica(control.controller)
    control.builder.accuracy = 0.7
    async with following(control.controller, replica):
        operation = await swap(control, HALF)
    assert (operation.phase, operation.error_type) == (Phase.FAILED, Cause.ACCURACY_FLOOR)
    assert replica.prepared is None and replica.generation == 1
    assert control.value("swaps_total", outcome="failed") == 1


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
