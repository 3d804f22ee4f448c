import asyncio
from pathlib import Path
from unittest.mock import patch

import pytest

from pruning.errors import StoreError
from service.errors import NotReady
from service.operations import Cause, Phase, RolloutState
from service.state import StateDamaged, StateFile, StateUnwritable
from tests.service.control_parts import (
    DENSE,
    HALF,
    SOON_S,
    Control,
    ModelReplica,
    following,
    full_disk,
    id_of,
    make_control,
    report_of,
    swap,
    until,
)


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
