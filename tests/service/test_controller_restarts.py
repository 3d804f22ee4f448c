from pathlib import Path

from service.operations import Phase
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
