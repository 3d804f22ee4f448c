import asyncio
import logging
from pathlib import Path

import pytest

from pruning.errors import StoreError
from service.locks import StoreInUse, sole_service
from service.tenure import Tenure
from tests.service.control_parts import until


class Work:
    """What is begun with the store in hand; counts how often, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = 0
        self.error = error

    async def __call__(self) -> None:
        self.begun += 1
        if self.error is not None:
            raise self.error


async def test_a_free_store_is_held_from_the_beginning_to_the_end(tmp_path: Path) -> None:
    work = Work()
    tenure = Tenure(tmp_path, work)
    await tenure.take()
    assert work.begun == 1 and not tenure.waiting
    with pytest.raises(StoreInUse), sole_service(tmp_path):
        pass
    await tenure.end()
    with sole_service(tmp_path):
        pass


async def test_a_store_in_use_is_taken_over_when_it_becomes_free(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "service.tenure")
    work = Work()
    tenure = Tenure(tmp_path, work, retry_s=0.01)
    with sole_service(tmp_path):
        await tenure.take()
        assert "another service is using the store" in caplog.text
        await asyncio.sleep(0.1)  # several more attempts
        assert tenure.waiting and work.begun == 0
        tenure.check()
    await until(lambda: not tenure.waiting)
    assert work.begun == 1
    tenure.check()
    with pytest.raises(StoreInUse), sole_service(tmp_path):
        pass
    await tenure.end()


async def test_what_fails_at_once_is_raised_and_what_fails_later_is_found_by_the_check(tmp_path: Path) -> None:
    broken = Work(StoreError("damaged"))
    tenure = Tenure(tmp_path, broken, retry_s=0.01)
    with pytest.raises(StoreError, match="damaged"):
        await tenure.take()
    await tenure.end()
    with sole_service(tmp_path):
        await tenure.take()
    await until(lambda: not tenure.waiting)
    with pytest.raises(StoreError, match="damaged"):
        tenure.check()
    await tenure.end()


async def test_one_that_stands_by_can_be_ended(tmp_path: Path) -> None:
    work = Work()
    tenure = Tenure(tmp_path, work, retry_s=0.01)
    with sole_service(tmp_path):
        await tenure.take()
        await tenure.end()
    assert not tenure.waiting and work.begun == 0


async def test_a_store_that_cannot_be_locked_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="choose a writable --store"):
        await Tenure(tmp_path / "file" / "store", Work()).take()
