"""The change of the serving variant as a pure state machine: a table from (phase, event) to (new state, actions).

                     ┌──────────┐  Built   ┌───────────┐  every live replica prepared
    ChangeRequested ─▶ building ├──────────▶ preparing ├──────────────────────────────▶ committed
                     └────┬─────┘          └─▲───┬─────┘
                          ▼  RollbackRequested   ▼
                        failed               rolled_back

``failed`` never reached a replica; ``rolled_back`` was dropped by the replicas that had prepared it, or taken back by a
request for a rollback, which a change that runs is the last change for. In neither did the committed variant stop
answering for a moment. A build that gives the committed variant itself is ``committed`` at once,
under the generation that is there: nothing is swapped. No phase means that nothing runs. Events carry the clock and the
limits, so that nothing here reads either; the controller writes every new state to disk before it acts on it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from service.errors import Conflict, PreconditionFailed
from service.events import (
    Action,
    Announce,
    Broken,
    Built,
    ChangeRequested,
    Event,
    LevelChosen,
    ReplicasReported,
    Reply,
    Restarted,
    RollbackRequested,
    StartBuild,
    Tick,
)
from service.floor import below_floor
from service.operations import HISTORY_LIMIT, Cause, Choice, Kind, Operation, Phase, RolloutState, same_cut

Transition = tuple[RolloutState, tuple[Action, ...]]


class IllegalTransition(Exception):
    """An event that cannot happen in this phase. This is a bug."""


def advance(state: RolloutState, event: Event) -> Transition:
    """Return the state after ``event`` and what is to be done once that state is on disk.

    Raises:
        Conflict: a request that another running operation, or the lack of a previous variant, stands against.
        PreconditionFailed: a request that was made for another generation.
        IllegalTransition: the event cannot happen in this phase.
    """
    if isinstance(event, (ChangeRequested, RollbackRequested)):
        _check_generation(state, event.expected_generation)
    handler = TRANSITIONS.get((state.phase, type(event)))
    if handler is None:
        raise IllegalTransition(f"{type(event).__name__} in phase {state.phase or 'idle'}. This is a bug.")
    changed, actions = handler(state, event)
    return (state if changed == state else replace(changed, version=state.version + 1)), actions


def _check_generation(state: RolloutState, expected: int | None) -> None:
    if expected not in (None, state.generation):
        raise PreconditionFailed(
            f"If-Match names generation {expected}, and {state.generation} is committed; look at what is served now, "
            "then ask again.",
            generation=state.generation,
        )


def _begin_change(state: RolloutState, event: ChangeRequested) -> Transition:
    if event.committed_stands and same_cut(event.spec, state.committed.spec):
        return _already_done(state, event)
    operation = Operation(
        id=event.operation_id,
        kind=Kind.SWAP,
        spec=event.spec,
        entered=((Phase.BUILDING, event.now),),
        deadline=event.deadline,
    )
    started = replace(state, operation=operation)
    return started, (StartBuild(operation.id, operation.spec), Announce(operation), Reply(operation))


def _already_done(state: RolloutState, event: ChangeRequested) -> Transition:
    """Answer with the operation that committed this spec, or with a finished one that had nothing to do."""
    committed = state.committed
    known = state.find(committed.operation_id) if committed.operation_id else None
    if known is not None:
        return state, (Reply(known),)
    operation = Operation(
        id=event.operation_id,
        kind=Kind.SWAP,
        spec=event.spec,
        entered=(),
        deadline=event.now,
        variant_id=committed.variant_id,
        achieved_sparsity=committed.achieved_sparsity,
        accuracy=committed.accuracy,
    )
    kept, done = _keep_committed(state, operation, event.now)
    return kept, (Reply(done),)


def _keep_committed(state: RolloutState, operation: Operation, now: float) -> tuple[RolloutState, Operation]:
    """End an operation well that asks for the committed variant: no swap, no new generation."""
    done = replace(operation, entered=(*operation.entered, (Phase.COMMITTED, now)), generation=state.generation)
    committed = replace(state.committed, operation_id=operation.id)
    return _remember(replace(state, operation=None, committed=committed), done), done


def _join_change(state: RolloutState, event: ChangeRequested) -> Transition:
    running = _running(state)
    if not same_cut(event.spec, running.spec):
        raise _busy(running)
    return state, (Reply(running),)


def _begin_rollback(state: RolloutState, event: RollbackRequested) -> Transition:
    target = state.previous
    if target is None:
        raise Conflict("There is no previous variant to go back to. Choose one with PUT /admin/sparsity.")
    if target.accuracy < event.accuracy_floor:
        below = below_floor(target.accuracy, event.accuracy_floor)
        raise Conflict(f"The previous variant {target.variant_id}: {below}; choose a lower sparsity")
    operation = Operation.of_stored(
        target, id=event.operation_id, kind=Kind.ROLLBACK, now=event.now, deadline=event.deadline
    )
    return replace(state, operation=operation), (Announce(operation), Reply(operation))


def _begin_level(state: RolloutState, event: LevelChosen) -> Transition:
    """Prepare a level that is stored and evaluated: there is nothing to build."""
    choice = event.choice
    if choice.accuracy < event.accuracy_floor:
        raise Conflict(f"level {choice.spec.sparsity:g}: {below_floor(choice.accuracy, event.accuracy_floor)}")
    stored = Operation.of_stored(choice, id=event.operation_id, kind=Kind.SWAP, now=event.now, deadline=event.deadline)
    operation = replace(stored, asked_by=event.asked_by, reason=event.reason)
    return replace(state, operation=operation), (Announce(operation), Reply(operation))


def _wait_for_other(state: RolloutState, event: LevelChosen) -> Transition:
    raise _busy(_running(state))


def _take_back(state: RolloutState, event: RollbackRequested) -> Transition:
    """End a change that runs: what is committed is the variant before it. A running rollback is joined."""
    running = _running(state)
    if running.kind is Kind.ROLLBACK:
        return state, (Reply(running),)
    error = f"taken back while it was {running.phase}; what was served goes on"
    changed, announced = _end(state, running, Cause.CANCELLED, error, event.now)
    return changed, (*announced, Reply(changed.history[-1]))


def _prepare(state: RolloutState, event: Built) -> Transition:
    operation = replace(
        _own(state, event.operation_id),
        variant_id=event.variant_id,
        achieved_sparsity=event.achieved_sparsity,
        accuracy=event.accuracy,
    )
    if event.accuracy < event.accuracy_floor:
        return _refuse(state, operation, event.accuracy, event.accuracy_floor, event.now)
    if event.variant_id == state.committed.variant_id:
        kept, done = _keep_committed(state, operation, event.now)
        return kept, (Announce(done),)
    operation = replace(operation, entered=(*operation.entered, (Phase.PREPARING, event.now)), deadline=event.deadline)
    return replace(state, operation=operation), (Announce(operation),)


def _give_up(state: RolloutState, event: Broken) -> Transition:
    return _end(state, _own(state, event.operation_id), event.cause, event.error, event.now)


def _hear_replicas(state: RolloutState, event: ReplicasReported) -> Transition:
    """Commit once every live replica has prepared; give up as soon as one of them cannot."""
    operation = _running(state)
    if event.operation_id != operation.id:
        return state, ()
    failed = sorted(event.live & event.failed.keys())
    if failed:
        return _end(state, operation, Cause.REPLICA, f"replica {failed[0]}: {event.failed[failed[0]]}", event.now)
    if not event.live or not event.live <= event.prepared or event.now < state.hold_until:
        return state, ()
    return _commit(state, operation, event.now)


def _commit(state: RolloutState, operation: Operation, now: float) -> Transition:
    assert operation.variant_id is not None and operation.achieved_sparsity is not None
    assert operation.accuracy is not None
    generation = state.generation + 1
    done = replace(operation, entered=(*operation.entered, (Phase.COMMITTED, now)), generation=generation)
    committed = Choice(
        variant_id=operation.variant_id,
        spec=operation.spec,
        achieved_sparsity=operation.achieved_sparsity,
        accuracy=operation.accuracy,
        operation_id=operation.id,
    )
    swapped = replace(state, generation=generation, committed=committed, previous=state.committed, operation=None)
    return _remember(swapped, done), (Announce(done),)


def _check_deadline(state: RolloutState, event: Tick) -> Transition:
    operation = _running(state)
    if event.now < operation.deadline:
        return state, ()
    if operation.phase is Phase.BUILDING:
        error = "the variant was not built in time"
    elif event.waiting:
        error = f"not prepared in time by replica {', '.join(sorted(event.waiting))}"
    else:
        error = "no replica was there to prepare the variant in time"
    return _end(state, operation, Cause.DEADLINE, error, event.now)


def _resume(state: RolloutState, event: Restarted) -> Transition:
    """Take the running operation up again: a build from its start, a preparation where it stands.

    The floor may have been raised meanwhile; a build is held against it when it ends.
    """
    held = replace(state, hold_until=event.hold_until)
    if state.operation is None:
        return held, ()
    operation = replace(state.operation, deadline=event.deadline)
    if operation.accuracy is not None and operation.accuracy < event.accuracy_floor:
        return _refuse(held, operation, operation.accuracy, event.accuracy_floor, event.now)
    build = (StartBuild(operation.id, operation.spec),) if operation.phase is Phase.BUILDING else ()
    return replace(held, operation=operation), (*build, Announce(operation))


def _unchanged(state: RolloutState, event: Event) -> Transition:
    return state, ()


def _refuse(state: RolloutState, operation: Operation, accuracy: float, floor: float, now: float) -> Transition:
    error = f"{below_floor(accuracy, floor)}; choose a lower sparsity"
    return _end(state, operation, Cause.ACCURACY_FLOOR, error, now)


def _end(state: RolloutState, operation: Operation, cause: Cause, error: str, now: float) -> Transition:
    """End the running operation without a commit; what is committed stays as it is."""
    is_failure = operation.phase is Phase.BUILDING and cause is not Cause.CANCELLED
    phase = Phase.FAILED if is_failure else Phase.ROLLED_BACK
    ended = replace(operation, entered=(*operation.entered, (phase, now)), error=error, error_type=cause)
    return _remember(replace(state, operation=None), ended), (Announce(ended),)


def _remember(state: RolloutState, operation: Operation) -> RolloutState:
    return replace(state, history=(*state.history, operation)[-HISTORY_LIMIT:])


def _running(state: RolloutState) -> Operation:
    assert state.operation is not None
    return state.operation


def _own(state: RolloutState, operation_id: str) -> Operation:
    """Return the running operation, which an event about a single operation must be about."""
    running = _running(state)
    if running.id != operation_id:
        raise IllegalTransition(f"event of operation {operation_id} while {running.id} runs. This is a bug.")
    return running


def _busy(running: Operation) -> Conflict:
    return Conflict(
        f"Operation {running.id} is {running.phase}, towards sparsity {running.spec.sparsity:g}. "
        f"Wait until GET /admin/operations/{running.id} says that it has ended, or take it back with "
        "POST /admin/rollback, then ask again.",
        operation=running.id,
    )


TRANSITIONS: dict[tuple[Phase | None, type[Event]], Callable[[RolloutState, Any], Transition]] = {
    (None, ChangeRequested): _begin_change,
    (None, RollbackRequested): _begin_rollback,
    (None, LevelChosen): _begin_level,
    (None, ReplicasReported): _unchanged,
    (None, Tick): _unchanged,
    (None, Restarted): _resume,
    (Phase.BUILDING, ChangeRequested): _join_change,
    (Phase.BUILDING, RollbackRequested): _take_back,
    (Phase.BUILDING, LevelChosen): _wait_for_other,
    (Phase.BUILDING, Built): _prepare,
    (Phase.BUILDING, Broken): _give_up,
    (Phase.BUILDING, ReplicasReported): _unchanged,
    (Phase.BUILDING, Tick): _check_deadline,
    (Phase.BUILDING, Restarted): _resume,
    (Phase.PREPARING, ChangeRequested): _join_change,
    (Phase.PREPARING, RollbackRequested): _take_back,
    (Phase.PREPARING, LevelChosen): _wait_for_other,
    (Phase.PREPARING, Broken): _give_up,
    (Phase.PREPARING, ReplicasReported): _hear_replicas,
    (Phase.PREPARING, Tick): _check_deadline,
    (Phase.PREPARING, Restarted): _resume,
}
