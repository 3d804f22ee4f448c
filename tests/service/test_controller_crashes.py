"""A controller that dies at any wait, whatever is under way, is followed by one that reaches a consistent state.

Each life is a real controller over real files, in time that the test makes; replicas outlive it, as they do in the
service, and so does what clients were told.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, lists, sampled_from, tuples

from pruning.spec import PruneSpec
from service.controller import VariantController
from service.errors import Conflict, NotReady
from service.operations import Asker, Operation, Phase
from service.protocol import Desired, ReplicaReport
from service.tally import Compared, Tally
from tests.service.control_parts import DENSE, Control, ModelReplica, SetClock, id_of, make_control
from tests.service.simulated_time import SimulatedLoop, in_place_of_a_thread

LEVELS = [PruneSpec(sparsity=sparsity) for sparsity in (0.3, 0.5, 0.7)]
ASKED = ("change", "try", "roll back", "policy", "disagree", "agree", "break", "wait")
steps = lists(tuples(sampled_from(ASKED), sampled_from(LEVELS)), min_size=1, max_size=8)
PAUSE_S, SETTLED_S = 1.0, 300.0
"""Simulated seconds after each step; and until everything must be still."""


class LoopClock(SetClock):
    """Time that passes as the loop says."""

    def __init__(self, loop: SimulatedLoop, start: float) -> None:
        super().__init__(start)
        self._loop = loop

    def __call__(self) -> float:
        return self.now + self._loop.time()


class CountingReplica(ModelReplica):
    """A replica that also tells what live traffic says of its variants."""

    def __init__(self, replica_id: str) -> None:
        super().__init__(cast(VariantController, None), replica_id)  # each life has its own
        self.tallies: dict[str, Tally] = {}

    def report(self) -> ReplicaReport:
        return replace(super().report(), tallies=tuple(self.tallies.values()))

    def count(self, variant_id: str, *, agreed: int) -> None:
        """Answer and compare a hundred more texts, ``agreed`` of them as the dense model."""
        slices = (Compared(label="good", length="1-8", texts=100, agreed=agreed, kl_sum=1.0),)
        more = Tally(variant_id=variant_id, answered=100, durations=(100,), compared=slices)
        self.tallies[variant_id] = self.tallies[variant_id] + more if variant_id in self.tallies else more


@dataclass
class World:
    """What outlives a controller: the folder, the replicas, and what anybody was ever told."""

    root: Path
    replicas: list[CountingReplica] = field(default_factory=lambda: [CountingReplica(name) for name in "ab"])
    accepted: set[str] = field(default_factory=set)
    """Operations that a client was told of."""
    ended: dict[str, Operation] = field(default_factory=dict)
    """Operations of which a client was told the end."""
    variants: dict[int, str] = field(default_factory=dict)
    """Generation -> variant, as any replica was ever told."""
    now: float = 1_700_000_000.0
    """When the next life begins."""

    def live(self, asked: list[tuple[str, PruneSpec]], *, die_at: int | None = None) -> int:
        """Let a controller live through ``asked``, up to a step; without one it lives until all has settled."""
        loop, died = SimulatedLoop(), True
        with patch.object(asyncio, "to_thread", in_place_of_a_thread):
            try:
                died = loop.run(self._life(loop, asked), die_at=die_at)
            finally:
                taken = loop.steps
                self.now += loop.time()
                with self._as_it_was_left() if died else nullcontext():
                    loop.end()
        return taken

    @contextmanager
    def _as_it_was_left(self) -> Iterator[None]:
        """Keep the files as they are: a process that died does not write when its tasks are ended."""
        files = {path: path.read_bytes() for path in self.root.glob("*.json")}
        yield
        for path in self.root.glob("*.json"):
            path.unlink()
        for path, content in files.items():
            path.write_bytes(content)

    async def _life(self, loop: SimulatedLoop, asked: list[tuple[str, PruneSpec]]) -> None:
        control = make_control(self.root, tick_s=1.0, poll_s=1.0, clock=LoopClock(loop, self.now))
        tasks = [asyncio.create_task(self._follow(replica, control)) for replica in self.replicas]
        await control.controller.start()
        for what, spec in asked:
            with suppress(Conflict, NotReady):
                await self._ask(control, what, spec)
            await asyncio.sleep(PAUSE_S)
        await self._settle(control)
        await self._check(control)
        await control.controller.stop()
        for task in tasks:
            task.cancel()

    async def _ask(self, control: Control, what: str, spec: PruneSpec) -> None:
        committed = control.controller.view.status()["variant"]
        if what in ("change", "try"):
            operation = await control.controller.request_change(spec, None, 0.5 if what == "try" else 0.0)
            self.accepted.add(operation.id)
        elif what == "roll back":
            self.accepted.add((await control.controller.request_rollback()).id)
        elif what == "policy":
            await control.controller.change_policy({"canary_texts": 150})
        elif what in ("agree", "disagree"):
            for replica in self.replicas:
                for variant_id in {committed, id_of(spec)} - {id_of(DENSE)}:
                    replica.count(variant_id, agreed=99 if what == "agree" else 20)
        elif what == "break":
            self.replicas[0].failure = None if self.replicas[0].failure else "out of memory"

    async def _follow(self, replica: CountingReplica, control: Control) -> None:
        replica.controller, replica.version = control.controller, -1
        while True:
            try:
                desired = await replica.ask()
            except NotReady:
                await asyncio.sleep(0.05)
                continue
            self._heard(desired)
            staged = desired.staged
            if staged is not None:
                await asyncio.sleep(0.1)  # it loads
                if replica.failure is not None:
                    replica.failed = staged.operation_id
                else:
                    replica.prepared = staged.operation_id
            assert desired.generation >= replica.generation
            replica.generation, replica.variant_id = desired.generation, desired.variant_id

    def _heard(self, desired: Desired) -> None:
        assert self.variants.setdefault(desired.generation, desired.variant_id) == desired.variant_id

    async def _settle(self, control: Control) -> None:
        """Wait until nothing runs and every replica is where the controller wants it."""
        for replica in self.replicas:
            replica.failure = None
        async with asyncio.timeout(SETTLED_S):
            while True:
                status = control.controller.view.status()
                there = {(one.generation, one.variant_id) for one in self.replicas}
                stored = control.file.read()
                goes_on = stored is None or stored.committed.variant_id in stored.distrusted  # the guard tries again
                if not goes_on and status["operation"] is None and there == {(status["generation"], status["variant"])}:
                    return
                await asyncio.sleep(0.5)

    async def _check(self, control: Control) -> None:
        stored = control.file.read()
        assert stored is not None and stored.operation is None
        assert (stored.generation, stored.committed.variant_id) == max(self.variants.items())
        for operation_id in self.accepted:
            operation = control.controller.operation(operation_id)
            assert operation.finished
            assert self.ended.setdefault(operation_id, operation) == operation
            if operation.phase is Phase.COMMITTED:
                assert operation.generation in self.variants
        for operation in stored.history:
            # What the guard went back to earlier may have lost its trust since.
            if operation.asked_by is Asker.GUARD and operation.generation == stored.generation:
                assert operation.variant_id == id_of(DENSE) or operation.variant_id not in stored.distrusted


EVERYTHING = [
    ("wait", DENSE),  # a new controller lets every replica be heard
    ("wait", DENSE),
    ("wait", DENSE),
    ("try", LEVELS[1]),
    ("agree", LEVELS[1]),
    ("wait", DENSE),
    ("change", LEVELS[2]),
    ("disagree", LEVELS[2]),
    ("policy", DENSE),
    ("change", LEVELS[0]),
    ("roll back", DENSE),
]
"""A trial that passes, a change that the guard turns back, a policy, a change and its rollback."""
PARTS = 4
"""Every step of ``EVERYTHING`` is tried by one of so many tests."""


def test_the_life_without_a_crash_does_what_it_is_to_do(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.live(EVERYTHING)
    phases = [world.ended[one].phase for one in world.accepted]
    assert phases.count(Phase.COMMITTED) >= 3
    assert len(world.variants) >= 5


@pytest.mark.parametrize("part", range(PARTS))
def test_it_may_die_at_any_wait_of_a_life_in_which_everything_happens(part: int, tmp_path: Path) -> None:
    whole = World(tmp_path / "whole")
    taken = whole.live(EVERYTHING)
    for die_at in range(1 + part, taken, PARTS):
        world = World(tmp_path / str(die_at))
        world.live(EVERYTHING, die_at=die_at)
        world.live([("wait", DENSE)])


@settings(max_examples=60, deadline=None)
@given(lives=lists(tuples(steps, integers(1, 200)), min_size=1, max_size=4), last=steps)
def test_it_may_die_again_and_again_whatever_is_asked(
    lives: list[tuple[list[tuple[str, PruneSpec]], int]], last: list[tuple[str, PruneSpec]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for asked, die_at in lives:
            world.live(asked, die_at=die_at)
        world.live(last)
