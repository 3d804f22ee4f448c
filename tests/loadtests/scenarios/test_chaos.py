import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests import kills, report
from loadtests.admin import AdminClient
from loadtests.errors import AdminError, LoadTestError
from loadtests.options import LoadOptions
from loadtests.processes import Part
from loadtests.result import Result
from loadtests.scenarios import chaos
from loadtests.scenarios.chaos import ChaosOptions
from tests.loadtests.fake_service import LEVELS, TOKEN, FakeService

SHORT = ChaosOptions(pid=1, rounds=2, steady_s=0.1, pause_s=0.2, limit_s=5.0, max_seconds=60.0)


class Processes:
    """Processes that come back at once under a new id, unless told not to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running = {part: [10 * number, 10 * number + 1] for number, part in enumerate(Part, start=1)}
        self.killed: list[Part] = []
        self.stays_away: Part | None = None
        monkeypatch.setattr(kills, "parts_of", lambda root, part: self.running[part])
        monkeypatch.setattr(kills, "kill_one", self.kill)
        monkeypatch.setattr(chaos, "require_parts", lambda root, parts: None)
        monkeypatch.setattr(chaos, "WITHIN_S", dict.fromkeys(chaos.WITHIN_S, 0.02))

    def kill(self, root: int, part: Part, draw: random.Random) -> int:
        pid = draw.choice(self.running[part])
        born = [] if part is self.stays_away else [pid + 100]
        self.running[part] = [one for one in self.running[part] if one != pid] + born
        self.killed.append(part)
        return pid


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    return Processes(monkeypatch)


async def run(service: FakeService, options: LoadOptions, chaotic: ChaosOptions = SHORT) -> Result:
    async with AdminClient(service.url, TOKEN) as admin:
        return await chaos.run(options, admin, chaotic)


async def test_every_part_is_killed_in_every_round_and_the_level_is_put_back(
    service: FakeService, options: LoadOptions, processes: Processes, tmp_path: Path
) -> None:
    service.sparsity = 0.5
    result = await run(service, options)
    assert result.held, [law.detail for law in result.laws]
    assert processes.killed == [*Part, *Part]
    assert service.sparsity == service.dials[-1] == 0.5
    first, second = service.dials[:4], service.dials[4:8]
    assert {*first[:3]} <= set(LEVELS) and not {first[3], *second} & set(LEVELS)  # the builder always has to build
    page = report.write(result, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".json", ".jsonl", ".png"}
    assert "kill -9" not in page.read_text() and ".png)" in page.read_text()


async def test_a_part_that_stays_away_is_told(service: FakeService, options: LoadOptions, processes: Processes) -> None:
    processes.stays_away = Part.REPLICA
    result = await run(service, options, replace(SHORT, parts=(Part.REPLICA,), rounds=1, limit_s=0.5))
    assert {law.name for law in result.laws if not law.held} == {"everything comes back"}


async def test_a_builder_is_replaced_when_there_is_something_to_build(
    service: FakeService, options: LoadOptions, processes: Processes
) -> None:
    processes.stays_away = Part.BUILDER
    assert (await run(service, options, replace(SHORT, parts=(Part.BUILDER,), rounds=1))).held


async def test_an_operation_that_is_forgotten_is_told(
    service: FakeService, options: LoadOptions, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = processes.kill

    def forgetful(root: int, part: Part, draw: random.Random) -> int:
        service.operations.clear()
        return kill(root, part, draw)

    monkeypatch.setattr(kills, "kill_one", forgetful)
    result = await run(service, options, replace(SHORT, parts=(Part.CONTROLLER,), rounds=1, limit_s=0.5))
    broken = {law.name: law.detail for law in result.laws if not law.held}
    assert "answered 404" in broken["nothing durable is lost"]


async def test_a_commit_that_is_undone_by_a_kill_is_told(
    service: FakeService, options: LoadOptions, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = processes.kill

    def undoing(root: int, part: Part, draw: random.Random) -> int:
        service.generation, service.sparsity = 1, 0.0
        return kill(root, part, draw)

    monkeypatch.setattr(kills, "kill_one", undoing)
    result = await run(service, options, replace(SHORT, parts=(Part.CONTROLLER,), rounds=1))
    broken = {law.name: law.detail for law in result.laws if not law.held}
    assert "generation 1 of variant-0 is committed" in broken["nothing durable is lost"]


async def test_what_was_seen_is_reported_even_if_the_service_is_away_in_the_end(
    service: FakeService, options: LoadOptions, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter(range(1000))
    state = AdminClient.state

    async def away(self: AdminClient) -> dict[str, object]:
        if processes.killed and next(states) > 5:
            raise AdminError("it is away")
        return await state(self)

    monkeypatch.setattr(AdminClient, "state", away)
    result = await run(service, options)
    assert "of 8 processes were killed" in {law.name: law.detail for law in result.laws}["everything comes back"]


async def test_a_service_without_a_part_is_refused_before_anything_is_sent(
    service: FakeService, options: LoadOptions, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as childless:
        with pytest.raises(LoadTestError, match="has no replica below it"):
            await run(service, options, replace(SHORT, pid=childless.pid))
        childless.terminate()
    assert service.answered == 0 and not service.dials


async def test_a_ladder_of_one_level_is_refused(
    service: FakeService, options: LoadOptions, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def single(self: AdminClient) -> list[float]:
        return [0.0]

    monkeypatch.setattr(AdminClient, "ladder", single)
    with pytest.raises(LoadTestError, match="two levels"):
        await run(service, options)
    assert not processes.killed
