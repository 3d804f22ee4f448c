"""What asks for a change of what is served: an operator, the governor, the guard."""

from dataclasses import replace

from service.errors import Conflict, PreconditionFailed
from service.events import (
    Action,
    Announce,
    ChangeRequested,
    GuardTripped,
    LevelChosen,
    Reply,
    RollbackRequested,
    StartBuild,
)
from service.floor import below_floor
from service.operations import Asker, Cause, Choice, Kind, Operation, Phase, RolloutState, same_cut
from service.rollout_ends import Transition, distrusting, end, keep_committed, running_of


def check_generation(state: RolloutState, expected: int | None) -> None:
    """Return if the generation is the one that is expected.

    Raises:
        PreconditionFailed: it is not.
    """
    if expected not in (None, state.generation):
        raise PreconditionFailed(
            f"If-Match names generation {expected}, and {state.generation} is committed; look at what is served now, "
            "then ask again.",
            generation=state.generation,
        )


def begin_change(state: RolloutState, event: ChangeRequested) -> Transition:
    """Have the variant built, unless it is committed."""
    if event.committed_stands and same_cut(event.spec, state.committed.spec):
        return _already_done(state, event)
    operation = Operation(
        id=event.operation_id,
        kind=Kind.SWAP,
        spec=event.spec,
        entered=((Phase.BUILDING, event.now),),
        deadline=event.deadline,
        canary=event.canary,
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
    kept, done = keep_committed(state, operation, event.now)
    return kept, (Reply(done),)


def join_change(state: RolloutState, event: ChangeRequested) -> Transition:
    """Answer the same wish with the operation that runs, which is tried no longer if that is wished now.

    Raises:
        Conflict: it is another wish.
    """
    running = running_of(state)
    if not same_cut(event.spec, running.spec):
        raise _busy(running)
    if not event.untried or running.canary is None or running.passed:
        return state, (Reply(running),)
    untried = replace(running, canary=None)
    if running.phase is Phase.TRYING:
        words = f"ended by request after {event.now - running.entered[-1][1]:.1f} s"
        untried = replace(running, passed=True, trial=words, deadline=event.deadline)
    return replace(state, operation=untried), (Reply(untried),)


def begin_level(state: RolloutState, event: LevelChosen) -> Transition:
    """Have a level prepared that is stored and evaluated. It is never tried: it answers before a trial would be over.

    Raises:
        Conflict: it is below the floor.
    """
    if event.choice.accuracy < event.accuracy_floor:
        below = below_floor(event.choice.accuracy, event.accuracy_floor)
        raise Conflict(f"level {event.choice.spec.sparsity:g}: {below}")
    stored = _stored(event, event.choice, Kind.SWAP)
    operation = replace(stored, asked_by=event.asked_by, reason=event.reason)
    return replace(state, operation=operation), (Announce(operation), Reply(operation))


def wait_for_other(state: RolloutState, event: LevelChosen) -> Transition:
    """Raise the Conflict that an operation which runs is to one that the service wants."""
    raise _busy(running_of(state))


def begin_rollback(state: RolloutState, event: RollbackRequested) -> Transition:
    """Have the previous variant prepared.

    Raises:
        Conflict: there is none, or none that may be served.
    """
    target = state.previous
    if target is None:
        raise Conflict("There is no previous variant to go back to. Choose one with PUT /admin/sparsity.")
    if target.accuracy < event.accuracy_floor:
        below = below_floor(target.accuracy, event.accuracy_floor)
        raise Conflict(f"The previous variant {target.variant_id}: {below}; choose a lower sparsity")
    if target.variant_id in state.distrusted:
        raise Conflict(
            f"The previous variant {target.variant_id} was turned back because it did not agree with the dense model "
            "on live traffic. Choose another one with PUT /admin/sparsity."
        )
    operation = _stored(event, target, Kind.ROLLBACK)
    return replace(state, operation=operation), (Announce(operation), Reply(operation))


def _stored(event: RollbackRequested | GuardTripped | LevelChosen, target: Choice, kind: Kind) -> Operation:
    """Return the operation that prepares a variant for which there is nothing to build."""
    return Operation(
        id=event.operation_id,
        kind=kind,
        spec=target.spec,
        entered=((Phase.PREPARING, event.now),),
        deadline=event.deadline,
        variant_id=target.variant_id,
        achieved_sparsity=target.achieved_sparsity,
        accuracy=target.accuracy,
    )


def turn_back(state: RolloutState, event: GuardTripped) -> Transition:
    """Go back to the previous variant, or to the fallback; a change that runs is ended, a rollback is let be.

    Nothing happens where another variant was committed meanwhile, or where there is nothing else to go to.
    """
    distrusted = distrusting(state, event.variant_id)
    trusted = [
        choice
        for choice in (state.previous, event.fallback)
        if choice is not None and choice.variant_id not in distrusted and choice.accuracy >= event.accuracy_floor
    ]
    is_going = state.operation is not None and state.operation.kind is Kind.ROLLBACK
    if state.committed.variant_id != event.variant_id or is_going or not trusted:
        return state, ()
    ended: tuple[Action, ...] = ()
    if state.operation is not None:
        state, ended = end(state, state.operation, Cause.CANCELLED, f"taken back: {event.reason}", event.now)
    operation = replace(_stored(event, trusted[0], Kind.ROLLBACK), asked_by=Asker.GUARD, reason=event.reason)
    return replace(state, operation=operation, distrusted=distrusted), (*ended, Announce(operation))


def take_back(state: RolloutState, event: RollbackRequested) -> Transition:
    """End a change that runs: what is committed is the variant before it. A running rollback is joined."""
    running = running_of(state)
    if running.kind is Kind.ROLLBACK:
        return state, (Reply(running),)
    error = f"taken back while it was {running.phase}; what was served goes on"
    changed, announced = end(state, running, Cause.CANCELLED, error, event.now)
    return changed, (*announced, Reply(changed.history[-1]))


def _busy(running: Operation) -> Conflict:
    return Conflict(
        f"Operation {running.id} is {running.phase}, towards sparsity {running.spec.sparsity:g}. "
        f"Wait until GET /admin/operations/{running.id} says that it has ended, or take it back with "
        "POST /admin/rollback, then ask again.",
        operation=running.id,
    )
