"""The comparison: every contestant installed and prepared, then read one at a time, round after round."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from sys import executable

from loadtests.admin import service_facts
from loadtests.peers.catalog import HERE, Contestant, Place
from loadtests.peers.cells import Reading, Shape, read
from loadtests.peers.environments import clean_environment, environment_python, pins
from loadtests.peers.process import PeerError, run_to_end
from loadtests.peers.rows import Row
from loadtests.peers.server import Server, running
from loadtests.progress import say
from loadtests.texts import request_bodies

PREPARE_LIMIT_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to compare, and how."""

    contestants: tuple[Contestant, ...]
    texts: Sequence[str]
    envs: Path
    """Folder of environments, prepared files and logs; kept between runs."""
    shapes: tuple[Shape, ...]
    levels: tuple[float, ...] = (0.0, 0.5, 0.7)
    seconds: float = 8.0
    rounds: int = 2
    warm_up_s: float = 1.0
    start_limit_s: float = 300.0
    timeout_s: float = 30.0
    """A request fails after it."""
    seed: int = 0

    def rows_of(self, contestant: Contestant) -> list[Row]:
        """Return the contestant's empty rows: one, or one for each level."""
        levels = self.levels if contestant.dialled else (None,)
        return [Row(contestant=contestant, level=level) for level in levels]


async def measure(plan: Plan) -> list[Row]:
    """Return every row, read or with the reason why not; the order of contestants turns about with each round."""
    rows = {contestant.name: plan.rows_of(contestant) for contestant in plan.contestants}
    places: dict[str, Place] = {}
    for contestant in plan.contestants:
        with _blamed(rows[contestant.name]):
            places[contestant.name] = await _ready(plan, contestant)
            if contestant.requirements:
                rows[contestant.name][0].versions = ", ".join(pins(contestant.requirements))
    present = [contestant for contestant in plan.contestants if contestant.name in places]
    for number in range(plan.rounds):
        for contestant in present if number % 2 == 0 else reversed(present):
            say(f"round {number + 1}/{plan.rounds}: {contestant.name} ...")
            with _blamed(rows[contestant.name]):
                await _read_contestant(plan, contestant, places[contestant.name], rows[contestant.name], number)
    return [row for contestant in plan.contestants for row in rows[contestant.name]]


async def _ready(plan: Plan, contestant: Contestant) -> Place:
    """Install and prepare a contestant; return where it is."""
    python = Path(executable)
    if contestant.requirements:
        python = await environment_python(contestant.requirements.parent.name, contestant.requirements, envs=plan.envs)
    place = Place(bin=python.parent, prepared=plan.envs / "prepared" / contestant.name, levels=plan.levels)
    if contestant.prepare:
        say(f"{contestant.name}: preparing ...")
        place.prepared.mkdir(parents=True, exist_ok=True)
        variables = place.variables() if contestant.folder else {}
        try:
            await run_to_end(
                contestant.prepare(place),
                folder=contestant.folder or HERE,
                environment=clean_environment() | variables,
                log=_log(plan, contestant, "prepare"),
                limit_s=PREPARE_LIMIT_S,
            )
        except PeerError as error:
            raise PeerError(f"cannot be prepared: {error}") from error
    return place


async def _read_contestant(plan: Plan, contestant: Contestant, place: Place, rows: list[Row], number: int) -> None:
    """Start a contestant once and fill one more reading into each cell of its rows."""
    async with running(
        contestant,
        place,
        log=_log(plan, contestant, f"round{number + 1}"),
        text=plan.texts[0],
        start_limit_s=plan.start_limit_s,
        timeout_s=plan.timeout_s,
    ) as server:
        say(f"  answers after {server.start_s:.1f} s")
        for row in rows:
            with _blamed([row]):
                await _read_row(plan, server, row)
            server.check()


async def _read_row(plan: Plan, server: Server, row: Row) -> None:
    if row.level is not None:
        await server.dial(row.level)
    if not row.versions:
        row.versions = (await service_facts(server.target)).get("service", "")
    row.starts_s.append(server.start_s)
    row.labels.append(await server.labels(plan.texts))
    for shape in plan.shapes:
        reading = await _read_cell(plan, server, shape)
        row.readings.setdefault(str(shape), []).append(reading)
        say(
            f"  {row.name} {shape}: {reading.items_per_s:.0f} texts/s, {reading.phase.failed} failed, "
            f"others {reading.others_cores:.2f} cores"
        )
        server.check()
    row.resident_bytes.append(server.process.tree.resident_bytes())


async def _read_cell(plan: Plan, server: Server, shape: Shape) -> Reading:
    bodies = request_bodies(plan.texts, seed=plan.seed, size=shape.texts, encode=server.contestant.adapter.body)
    return await read(
        server.target,
        shape,
        bodies,
        seconds=plan.seconds,
        warm_up_s=plan.warm_up_s,
        timeout_s=plan.timeout_s,
        tree=server.process.tree,
    )


@contextmanager
def _blamed(rows: list[Row]) -> Iterator[None]:
    """Write down in ``rows`` why the block could not go on; the run does."""
    try:
        yield
    except PeerError as error:
        for row in rows:
            row.note(str(error))
        say(f"  {rows[0].contestant.name}: {error}")


def _log(plan: Plan, contestant: Contestant, step: str) -> Path:
    return plan.envs / "logs" / f"{contestant.name}-{step}.log"
