import asyncio
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from service.errors import NotReady
from service.newborn import born_on, check_still_committed, first_desired
from service.policy import Policy
from service.protocol import Desired, ReplicaReport
from service.state import StateDamaged, StateFile
from tests.service.control_parts import DENSE, first_state, id_of, until

DESIRED = Desired(
    version=1,
    generation=7,
    variant_id="half",
    previous_variant_id=None,
    staged=None,
    resident=(),
    draining=False,
    peers=(),
    policy=Policy(accuracy_floor=0.8),
)


@dataclass
class Line:
    """A controller that answers, refuses or hangs, as the test says."""

    mood: str
    reports: list[ReplicaReport] = field(default_factory=list)

    async def sync(self, report: ReplicaReport, known_version: int) -> Desired:
        self.reports.append(report)
        if self.mood == "hangs":
            await asyncio.Event().wait()
        if self.mood == "refuses":
            raise ConnectionError("no controller")
        return DESIRED


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "state.json")


async def newborn(line: Line, file: StateFile, *, limit_s: float = 60.0) -> tuple[int, str]:
    return await born_on(line, file, replica_id="new", metrics_address="", patience_s=0.02, limit_s=limit_s)


async def test_a_newborn_asks_until_it_is_answered_and_gets_no_lease_by_it() -> None:
    line = Line("refuses")
    asking = asyncio.create_task(
        first_desired(line, replica_id="new", metrics_address="127.0.0.1:1", timeout_s=60.0, retry_s=0.01)
    )
    await until(lambda: len(line.reports) > 1)
    line.mood = "answers"
    assert await asking == DESIRED
    assert (line.reports[0].replica_id, line.reports[0].variant_id) == ("new", "")


@pytest.mark.parametrize("mood", ["refuses", "hangs"])
async def test_an_answer_that_does_not_come_in_time_is_not_ready(mood: str) -> None:
    with pytest.raises(NotReady, match="controller"):
        await first_desired(Line(mood), replica_id="new", metrics_address="", timeout_s=0.05, retry_s=0.01)


async def test_the_controllers_word_goes_before_its_durable_state(file: StateFile) -> None:
    file.write(first_state())
    assert await newborn(Line("answers"), file) == (7, "half")


@pytest.mark.parametrize("mood", ["refuses", "hangs"])
async def test_without_the_controller_its_durable_state_is_enough(file: StateFile, mood: str) -> None:
    file.write(replace(first_state(), generation=4))
    assert await newborn(Line(mood), file) == (4, id_of(DENSE))


@pytest.mark.parametrize("mood", ["refuses", "hangs"])
async def test_a_controller_that_prepares_its_first_variant_is_waited_for(
    file: StateFile, mood: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.newborn")
    line = Line(mood)
    waiting = asyncio.create_task(newborn(line, file))
    await until(lambda: caplog.text.count("may be preparing the ladder") >= 3)
    assert not waiting.done()
    line.mood = "answers"
    assert await waiting == (7, "half")


async def test_waiting_for_a_first_variant_has_a_limit(file: StateFile) -> None:
    with pytest.raises(NotReady, match=r"within 0\.1 s"):
        await newborn(Line("refuses"), file, limit_s=0.1)


async def test_a_damaged_durable_state_is_refused_by_name(file: StateFile) -> None:
    file.path.write_text("{")
    with pytest.raises(StateDamaged, match=r"state\.json"):
        await newborn(Line("refuses"), file)


async def test_a_commit_missed_while_loading_is_noticed_without_the_controller(file: StateFile) -> None:
    file.write(replace(first_state(), generation=4))
    await check_still_committed(file, 4)
    await check_still_committed(file, 5)
    with pytest.raises(NotReady, match="Generation 4"):
        await check_still_committed(file, 3)
