"""Random walks: whatever happens in whatever order, the laws of a rollout hold after every step."""

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import booleans, floats, sampled_from

from pruning.spec import PruneSpec
from service.errors import Conflict
from service.events import (
    Broken,
    Built,
    ChangeRequested,
    Event,
    GuardTripped,
    LevelChosen,
    ReplicasReported,
    Restarted,
    RollbackRequested,
    StartBuild,
    Tick,
    TrialJudged,
)
from service.operations import Asker, Canary, Cause, Choice, Phase
from service.rollout import advance
from tests.service.control_parts import FLOOR, choice_of, first_state, id_of

LEASE_S = 3.0
specs = sampled_from([PruneSpec(sparsity=sparsity) for sparsity in (0.0, 0.3, 0.5, 0.7)])
names = sampled_from("abc")


class Walk(RuleBasedStateMachine):
    """A controller's state, the disk's copy of it, its replicas and its builds."""

    def __init__(self) -> None:
        super().__init__()
        self.state = self.disk = first_state()
        self.now = 100.0
        self.live = {"a"}
        self.prepared: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.builds: list[StartBuild] = []
        self.count = 0

    def happen(self, event: Event, *, crash: bool = False) -> None:
        """Let an event happen; a crash loses what was written but not yet adopted."""
        before = self.state
        try:
            state, actions = advance(before, event)
        except Conflict:
            return
        assert state.version == before.version + (state != before)
        if state.generation != before.generation:
            self.check_commit(before.committed, event)
        else:
            assert (state.committed.variant_id, state.previous) == (before.committed.variant_id, before.previous)
        self.disk = state
        if crash:
            self.restart()
        else:
            self.state = state
            self.builds += [action for action in actions if isinstance(action, StartBuild)]

    def check_commit(self, before: Choice, event: Event) -> None:
        running, state = self.state.operation, advance(self.state, event)[0]
        assert isinstance(event, ReplicasReported)
        assert running is not None
        assert running.passed if running.canary else running.phase is Phase.PREPARING
        assert self.live and all(self.prepared.get(name) == running.id for name in self.live)
        assert running.accuracy is not None and running.accuracy >= FLOOR
        assert event.now >= self.state.hold_until
        assert state.generation == self.state.generation + 1
        assert (state.committed.variant_id, state.previous) == (running.variant_id, before)

    def restart(self) -> None:
        self.state, self.builds = self.disk, []
        self.happen(
            Restarted(accuracy_floor=FLOOR, now=self.now, hold_until=self.now + LEASE_S, deadline=self.now + 60)
        )

    def new_id(self) -> str:
        self.count += 1
        return f"op{self.count}"

    @rule(spec=specs, stands=booleans(), tried=booleans(), untried=booleans(), crash=booleans())
    def request(self, spec: PruneSpec, stands: bool, tried: bool, untried: bool, crash: bool) -> None:
        event = ChangeRequested(
            operation_id=self.new_id(),
            spec=spec,
            committed_stands=stands,
            now=self.now,
            deadline=self.now + 60,
            canary=Canary(fraction=0.1, seconds=5.0) if tried else None,
            untried=untried and not tried,
        )
        self.happen(event, crash=crash)

    @rule(crash=booleans())
    def request_rollback(self, crash: bool) -> None:
        event = RollbackRequested(
            operation_id=self.new_id(), accuracy_floor=FLOOR, now=self.now, deadline=self.now + 30
        )
        self.happen(event, crash=crash)

    @rule(spec=specs, accuracy=floats(0.5, 1.0), crash=booleans())
    def choose_level(self, spec: PruneSpec, accuracy: float, crash: bool) -> None:
        if id_of(spec) in self.state.distrusted:  # the governor leaves them out
            return
        event = LevelChosen(
            operation_id=self.new_id(),
            choice=choice_of(spec, accuracy=accuracy),
            asked_by=Asker.GOVERNOR,
            reason="r",
            accuracy_floor=FLOOR,
            now=self.now,
            deadline=self.now + 30,
        )
        self.happen(event, crash=crash)

    def finished_build(self) -> StartBuild | None:
        """A build whose operation still waits for it; the controller drops the others too."""
        build = self.builds.pop() if self.builds else None
        running = self.state.operation
        waited_for = build is not None and running is not None and running.id == build.operation_id
        return build if waited_for and self.state.phase is Phase.BUILDING else None

    @rule(accuracy=floats(0.5, 1.0), crash=booleans())
    def build_ends(self, accuracy: float, crash: bool) -> None:
        if build := self.finished_build():
            event = Built(
                operation_id=build.operation_id,
                variant_id=id_of(build.spec),
                achieved_sparsity=build.spec.sparsity,
                accuracy=accuracy,
                accuracy_floor=FLOOR,
                now=self.now,
                deadline=self.now + 30,
            )
            self.happen(event, crash=crash)

    @rule()
    def build_breaks(self) -> None:
        if build := self.finished_build():
            self.happen(Broken(operation_id=build.operation_id, error="e", cause=Cause.BUILD, now=self.now))

    @rule(name=names)
    def replica_is_born(self, name: str) -> None:
        self.live.add(name)

    @rule(name=names)
    def replica_dies(self, name: str) -> None:
        self.live.discard(name)
        self.prepared.pop(name, None)
        self.failed.pop(name, None)

    @rule(name=names)
    def replica_prepares(self, name: str) -> None:
        if name in self.live and self.state.phase in (Phase.PREPARING, Phase.TRYING) and self.state.operation:
            self.prepared[name] = self.state.operation.id

    @rule(name=names)
    def replica_fails(self, name: str) -> None:
        if name in self.live and self.state.phase in (Phase.PREPARING, Phase.TRYING) and self.state.operation:
            self.failed[name] = self.state.operation.id

    @rule(crash=booleans())
    def replicas_report(self, crash: bool) -> None:
        self.report_of(self.state.operation.id if self.state.operation else "", crash)

    @rule()
    def a_late_report_arrives(self) -> None:
        before = self.state
        self.report_of("op0", crash=False)
        assert self.state == before

    def report_of(self, operation_id: str, crash: bool) -> None:
        event = ReplicasReported(
            operation_id=operation_id,
            live=frozenset(self.live),
            prepared=frozenset(name for name, known in self.prepared.items() if known == operation_id),
            failed={name: "e" for name, known in self.failed.items() if known == operation_id},
            accuracy_floor=FLOOR,
            now=self.now,
        )
        self.happen(event, crash=crash)

    @rule(cause=sampled_from([None, Cause.AGREEMENT]), crash=booleans())
    def a_trial_is_judged(self, cause: Cause | None, crash: bool) -> None:
        running = self.state.operation
        if running and running.phase is Phase.TRYING:
            event = TrialJudged(
                operation_id=running.id, cause=cause, words="seen", now=self.now, deadline=self.now + 30
            )
            self.happen(event, crash=crash)

    @rule(crash=booleans())
    def the_guard_trips(self, crash: bool) -> None:
        event = GuardTripped(
            operation_id=self.new_id(),
            variant_id=self.state.committed.variant_id,
            reason="it disagrees",
            fallback=choice_of(PruneSpec(sparsity=0.0)),
            accuracy_floor=FLOOR,
            now=self.now,
            deadline=self.now + 30,
        )
        self.happen(event, crash=crash)

    @rule(seconds=floats(0.1, 20.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.happen(Tick(now=self.now, waiting=frozenset(self.live)))

    @rule()
    def controller_restarts(self) -> None:
        self.restart()

    @invariant()
    def at_most_one_operation_runs(self) -> None:
        assert all(operation.finished for operation in self.state.history)
        assert self.state.operation is None or not self.state.operation.finished

    @invariant()
    def operations_are_told_apart(self) -> None:
        ids = [operation.id for operation in self.state.history]
        ids += [self.state.operation.id] if self.state.operation else []
        assert len(ids) == len(set(ids))

    @invariant()
    def only_committed_operations_have_a_generation(self) -> None:
        for operation in self.state.history:
            assert (operation.generation is not None) == (operation.phase is Phase.COMMITTED)
            assert (operation.error is None) == (operation.phase is Phase.COMMITTED)

    @invariant()
    def what_is_committed_is_not_distrusted_unless_it_is_being_left(self) -> None:
        leaving = self.state.operation is not None and self.state.operation.asked_by is Asker.GUARD
        ended_badly = any(one.asked_by is Asker.GUARD and one.error for one in self.state.history)
        assert leaving or ended_badly or self.state.committed.variant_id not in self.state.distrusted

    @invariant()
    def memory_is_what_the_disk_says(self) -> None:
        assert self.state == self.disk


Walk.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestWalks = Walk.TestCase
