from pathlib import Path

import pytest

from pruning.spec import PruneSpec
from pruning.variants import VariantStore
from service.operations import Cause, Phase
from service.protocol import Refusal
from tests.service.control_parts import (
    DENSE,
    HALF,
    MORE,
    SOON_S,
    Control,
    ModelReplica,
    following,
    id_of,
    make_control,
    put,
    swap,
    until,
)


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
