"""How the running operation goes on: built, prepared, tried, committed, or given up on the way."""

from dataclasses import replace

from service.events import Announce, Broken, Built, Event, ReplicasReported, Restarted, StartBuild, Tick, TrialJudged
from service.operations import Canary, Cause, Operation, Phase, RolloutState
from service.rollout_ends import Transition, commit, distrusting, end, keep_committed, own, refuse, running_of

JUDGEMENT_S = 30.0
"""How long after its end a trial waits to be judged."""


def prepare(state: RolloutState, event: Built) -> Transition:
    """Have the replicas load what was built, if it holds the floor and is not what they serve."""
    operation = replace(
        own(state, event.operation_id),
        variant_id=event.variant_id,
        achieved_sparsity=event.achieved_sparsity,
        accuracy=event.accuracy,
    )
    if event.accuracy < event.accuracy_floor:
        return refuse(state, operation, event.accuracy, event.accuracy_floor, event.now)
    if event.variant_id == state.committed.variant_id:
        kept, done = keep_committed(state, operation, event.now)
        return kept, (Announce(done),)
    operation = replace(operation, entered=(*operation.entered, (Phase.PREPARING, event.now)), deadline=event.deadline)
    return replace(state, operation=operation), (Announce(operation),)


def give_up(state: RolloutState, event: Broken) -> Transition:
    """End what cannot go on."""
    return end(state, own(state, event.operation_id), event.cause, event.error, event.now)


def hear_replicas(state: RolloutState, event: ReplicasReported) -> Transition:
    """Try, or commit, once every live replica has prepared; give up if one of them cannot, or the floor was raised."""
    operation = running_of(state)
    if event.operation_id != operation.id:
        return state, ()
    assert operation.accuracy is not None
    if operation.accuracy < event.accuracy_floor:
        return refuse(state, operation, operation.accuracy, event.accuracy_floor, event.now)
    failed = sorted(event.live & event.failed.keys())
    if failed:
        return end(state, operation, Cause.REPLICA, f"replica {failed[0]}: {event.failed[failed[0]]}", event.now)
    if not event.live or not event.live <= event.prepared or event.now < state.hold_until:
        return state, ()
    if operation.canary is not None and not operation.passed:
        return _begin_trial(state, operation, operation.canary, event.now)
    return commit(state, operation, event.now)


def _begin_trial(state: RolloutState, operation: Operation, canary: Canary, now: float) -> Transition:
    if operation.phase is Phase.TRYING:  # its judgement is waited for
        return state, ()
    tried = replace(
        operation,
        entered=(*operation.entered, (Phase.TRYING, now)),
        deadline=now + canary.seconds + JUDGEMENT_S,
    )
    return replace(state, operation=tried), (Announce(tried),)


def hear_judgement(state: RolloutState, event: TrialJudged) -> Transition:
    """Turn back what did not pass; what did is committed as soon as the replicas are heard again.

    Who did not agree with the dense model is trusted no more than if it had been committed.
    """
    operation = own(state, event.operation_id)
    if event.cause is not None:
        ended, announced = end(state, operation, event.cause, event.words, event.now)
        if event.cause is not Cause.AGREEMENT:
            return ended, announced
        assert operation.variant_id is not None
        return replace(ended, distrusted=distrusting(state, operation.variant_id)), announced
    return replace(state, operation=replace(operation, passed=True, trial=event.words, deadline=event.deadline)), ()


def check_deadline(state: RolloutState, event: Tick) -> Transition:
    """End what takes too long."""
    operation = running_of(state)
    if event.now < operation.deadline:
        return state, ()
    if operation.phase is Phase.BUILDING:
        error = "the variant was not built in time"
    elif operation.phase is Phase.TRYING and not operation.passed:
        error = "the trial was not judged in time"
    elif event.waiting:
        error = f"not prepared in time by replica {', '.join(sorted(event.waiting))}"
    else:
        error = "no replica was there to prepare the variant in time"
    return end(state, operation, Cause.DEADLINE, error, event.now)


def resume(state: RolloutState, event: Restarted) -> Transition:
    """Take the running operation up again: a build from its start, a preparation where it stands.

    The floor may have been raised meanwhile; a build is held against it when it ends.
    """
    held = replace(state, hold_until=event.hold_until)
    if state.operation is None:
        return held, ()
    operation = replace(state.operation, deadline=event.deadline)
    if operation.accuracy is not None and operation.accuracy < event.accuracy_floor:
        return refuse(held, operation, operation.accuracy, event.accuracy_floor, event.now)
    build = (StartBuild(operation.id, operation.spec),) if operation.phase is Phase.BUILDING else ()
    return replace(held, operation=operation), (*build, Announce(operation))


def unchanged(state: RolloutState, event: Event) -> Transition:
    """Let be what has no meaning in a phase."""
    return state, ()
