"""Events of a rollout, and the states that they lead to."""

from dataclasses import replace

from pruning.spec import PruneSpec
from service.events import (
    Action,
    Broken,
    Built,
    ChangeRequested,
    Event,
    GuardTripped,
    LevelChosen,
    ReplicasReported,
    Reply,
    Restarted,
    RollbackRequested,
    Tick,
    TrialJudged,
)
from service.operations import Asker, Canary, Cause, Choice, Operation, Phase, RolloutState
from service.rollout import advance
from tests.service.control_parts import DENSE, FLOOR, HALF, MORE, choice_of, first_state, id_of

CANARY = Canary(fraction=0.1, seconds=5.0)


def change(
    spec: PruneSpec = HALF, operation_id: str = "op1", now: float = 10.0, *, stands: bool = True
) -> ChangeRequested:
    return ChangeRequested(operation_id=operation_id, spec=spec, committed_stands=stands, now=now, deadline=now + 60)


def rollback(operation_id: str = "op2", now: float = 30.0, floor: float = FLOOR) -> RollbackRequested:
    return RollbackRequested(operation_id=operation_id, accuracy_floor=floor, now=now, deadline=now + 30)


def level(
    spec: PruneSpec = MORE, operation_id: str = "op3", now: float = 40.0, *, accuracy: float = 0.88
) -> LevelChosen:
    return LevelChosen(
        operation_id=operation_id,
        choice=choice_of(spec, accuracy=accuracy),
        asked_by=Asker.GOVERNOR,
        reason="9 requests a second were refused",
        accuracy_floor=FLOOR,
        now=now,
        deadline=now + 30,
    )


def built(
    accuracy: float = 0.88, operation_id: str = "op1", now: float = 12.0, *, variant_id: str = id_of(HALF)
) -> Built:
    return Built(
        operation_id=operation_id,
        variant_id=variant_id,
        achieved_sparsity=0.497,
        accuracy=accuracy,
        accuracy_floor=FLOOR,
        now=now,
        deadline=now + 30,
    )


def reported(
    live: str = "ab",
    prepared: str = "ab",
    failed: dict[str, str] | None = None,
    *,
    of: str = "op1",
    floor: float = FLOOR,
    now: float = 15.0,
) -> ReplicasReported:
    return ReplicasReported(
        operation_id=of,
        live=frozenset(live),
        prepared=frozenset(prepared),
        failed=failed or {},
        accuracy_floor=floor,
        now=now,
    )


def broken(operation_id: str = "op1", now: float = 13.0) -> Broken:
    return Broken(operation_id=operation_id, error="no rows", cause=Cause.BUILD, now=now)


def after(state: RolloutState, *events: Event) -> RolloutState:
    for event in events:
        state, _ = advance(state, event)
    return state


def replied(actions: tuple[Action, ...]) -> Operation:
    return next(action.operation for action in actions if isinstance(action, Reply))


def in_phase(phase: Phase | None) -> RolloutState:
    """A state in ``phase``; the final ones cannot be reached as a running phase and are made by force."""
    if phase is None:
        return replace(first_state(), previous=choice_of(MORE))
    building = after(in_phase(None), change())
    if phase is Phase.BUILDING:
        return building
    preparing = after(building, built())
    if phase is Phase.PREPARING:
        return preparing
    if phase is Phase.TRYING:
        return after(in_phase(None), replace(change(), canary=CANARY), built(), reported())
    assert preparing.operation is not None
    return replace(preparing, operation=replace(preparing.operation, entered=((phase, 1.0),)))


def judged(cause: Cause | None = None, now: float = 20.0) -> TrialJudged:
    return TrialJudged(operation_id="op1", cause=cause, words="seen", now=now, deadline=now + 30)


def tripped(spec: PruneSpec = DENSE, *, fallback: Choice | None = None) -> GuardTripped:
    return GuardTripped(
        operation_id="guard1",
        variant_id=id_of(spec),
        reason="it disagrees",
        fallback=fallback or choice_of(DENSE),
        accuracy_floor=FLOOR,
        now=40.0,
        deadline=70.0,
    )


EVENTS: dict[type[Event], Event] = {
    ChangeRequested: change(),
    RollbackRequested: rollback(),
    LevelChosen: level(),
    Built: built(),
    Broken: broken(),
    ReplicasReported: reported(),
    TrialJudged: judged(),
    GuardTripped: tripped(),
    Tick: Tick(now=11.0),
    Restarted: Restarted(accuracy_floor=FLOOR, now=20.0, hold_until=23.0, deadline=80.0),
}
