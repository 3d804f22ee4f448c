from pathlib import Path

import pytest

from pruning.variants import VariantStore
from service.builds import run_build
from service.events import Broken, Built
from service.operations import Cause
from service.protocol import Refusal
from tests.service.control_parts import FLOOR, HALF, FakeBuilder, id_of

IN_USE = frozenset({id_of(HALF)})


async def outcome_of(builder: FakeBuilder) -> Built | Broken:
    return await run_build(
        builder, "op1", HALF, in_use=IN_USE, accuracy_floor=lambda: FLOOR, prepare_timeout_s=30.0, wall=lambda: 5.0
    )


@pytest.fixture
def builder(tmp_path: Path) -> FakeBuilder:
    return FakeBuilder(VariantStore(tmp_path))


async def test_a_build_is_told_by_its_essentials(builder: FakeBuilder) -> None:
    assert await outcome_of(builder) == Built(
        operation_id="op1",
        variant_id=id_of(HALF),
        achieved_sparsity=0.5,
        accuracy=0.9,
        accuracy_floor=FLOOR,
        now=5.0,
        deadline=35.0,
    )
    assert builder.in_use == [IN_USE]


@pytest.mark.parametrize("cause", [Cause.BUILD, Cause.STORAGE])
async def test_a_refusal_breaks_the_operation_in_its_own_words_and_for_its_own_cause(
    builder: FakeBuilder, cause: Cause
) -> None:
    builder.refusal = Refusal(message="no rows; give --eval F", cause=cause)
    assert await outcome_of(builder) == Broken(operation_id="op1", error="no rows; give --eval F", cause=cause, now=5.0)


@pytest.mark.parametrize("error", [RuntimeError("password=hunter2"), ConnectionError("password=hunter2")])
async def test_what_was_not_foreseen_breaks_it_without_private_words(builder: FakeBuilder, error: Exception) -> None:
    builder.error = error
    outcome = await outcome_of(builder)
    assert isinstance(outcome, Broken)
    assert outcome.cause is Cause.INTERNAL
    assert "its log says what" in outcome.error and "hunter2" not in outcome.error
