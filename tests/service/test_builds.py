import errno
import os
from pathlib import Path

import pytest

from pruning.errors import StoreError
from pruning.variants import VariantStore
from service.builds import run_build
from service.events import Broken, Built
from service.operations import Cause
from tests.service.control_parts import FLOOR, FakeBuilder, id_of
from tests.service.test_rollout import HALF


async def outcome_of(builder: FakeBuilder) -> Built | Broken:
    return await run_build(builder, "op1", HALF, accuracy_floor=FLOOR, prepare_timeout_s=30.0, wall=lambda: 5.0)


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


@pytest.mark.parametrize(
    ("error", "cause", "words"),
    [
        (StoreError("variant x could not be written; free space"), Cause.BUILD, "variant x could not be written"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), Cause.STORAGE, "the disk is full; free space"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), Cause.STORAGE, "read-only"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), Cause.STORAGE, "Input/output error"),
        (OSError("no number"), Cause.STORAGE, "the log says what"),
        (RuntimeError("password=hunter2"), Cause.INTERNAL, "its log says what"),
    ],
)
async def test_whatever_breaks_a_build_has_public_words(
    builder: FakeBuilder, error: Exception, cause: Cause, words: str
) -> None:
    builder.error = error
    outcome = await outcome_of(builder)
    assert isinstance(outcome, Broken)
    assert outcome.cause is cause
    assert words in outcome.error
    assert "hunter2" not in outcome.error
