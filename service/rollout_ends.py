"""How an operation of the rollout ends, whatever led there: committed, refused, taken back."""

from dataclasses import replace

from service.events import Action, Announce
from service.floor import below_floor
from service.operations import HISTORY_LIMIT, Cause, Choice, Operation, Phase, RolloutState

Transition = tuple[RolloutState, tuple[Action, ...]]


class IllegalTransition(Exception):
    """An event that cannot happen in this phase. This is a bug."""


def keep_committed(state: RolloutState, operation: Operation, now: float) -> tuple[RolloutState, Operation]:
    """End an operation well that asks for the committed variant: no swap, no new generation."""
    done = replace(operation, entered=(*operation.entered, (Phase.COMMITTED, now)), generation=state.generation)
    committed = replace(state.committed, operation_id=operation.id)
    return _remember(replace(state, operation=None, committed=committed), done), done


def commit(state: RolloutState, operation: Operation, now: float) -> Transition:
    """Let its variant answer by default, under the next generation."""
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
    swapped = replace(
        state,
        generation=generation,
        committed=committed,
        previous=state.committed,
        operation=None,
        distrusted=tuple(one for one in state.distrusted if one != committed.variant_id),
    )
    return _remember(swapped, done), (Announce(done),)


def refuse(state: RolloutState, operation: Operation, accuracy: float, floor: float, now: float) -> Transition:
    """End an operation whose variant is below the accuracy floor."""
    error = f"{below_floor(accuracy, floor)}; choose a lower sparsity"
    return end(state, operation, Cause.ACCURACY_FLOOR, error, now)


def end(state: RolloutState, operation: Operation, cause: Cause, error: str, now: float) -> Transition:
    """End the running operation without a commit; what is committed stays as it is."""
    is_failure = operation.phase is Phase.BUILDING and cause is not Cause.CANCELLED
    phase = Phase.FAILED if is_failure else Phase.ROLLED_BACK
    ended = replace(operation, entered=(*operation.entered, (phase, now)), error=error, error_type=cause)
    return _remember(replace(state, operation=None), ended), (Announce(ended),)


def distrusting(state: RolloutState, variant_id: str) -> tuple[str, ...]:
    """Return the variants that are not trusted once this one is not either."""
    return tuple(dict.fromkeys((*state.distrusted, variant_id)))


def _remember(state: RolloutState, operation: Operation) -> RolloutState:
    return replace(state, history=(*state.history, operation)[-HISTORY_LIMIT:])


def running_of(state: RolloutState) -> Operation:
    """Return the operation that runs: in every phase but none there is one."""
    assert state.operation is not None
    return state.operation


def own(state: RolloutState, operation_id: str) -> Operation:
    """Return the running operation, which an event about a single operation must be about."""
    running = running_of(state)
    if running.id != operation_id:
        raise IllegalTransition(f"event of operation {operation_id} while {running.id} runs. This is a bug.")
    return running
