"""The change of the serving variant as a pure state machine: a table from (phase, event) to (new state, actions).

                     ┌──────────┐ Built ┌───────────┐ all prepared, a trial is wanted ┌────────┐
    ChangeRequested ─▶ building ├───────▶ preparing ├─────────────────────────────────▶ trying │
                     └────┬─────┘       └─▲───┬───┬─┘                                 └─┬────┬─┘
                          │               │   │   │ all prepared                  passed│    │
                          ▼  RollbackRequested│   └──────────────▶ committed ◀──────────┘    │
                        failed   GuardTripped ▼                                              │
                                         rolled_back ◀───────────────────────────────────────┘

``failed`` never reached a replica; ``rolled_back`` was dropped by the replicas that had prepared it, turned back after
its trial, or taken back by a request for a rollback, which a change that runs is the last change for. In neither did
the committed variant stop answering for a moment. A build that gives the committed variant itself is ``committed`` at
once, under the generation that is there: nothing is swapped. No phase means that nothing runs. Events carry the clock
and the limits, so that nothing here reads either; the controller writes every new state to disk before it acts on it.

The steps are in ``rollout_requests``, ``rollout_progress`` and ``rollout_ends``.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

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
    Tick,
    TrialJudged,
)
from service.operations import Phase, RolloutState
from service.rollout_ends import IllegalTransition, Transition
from service.rollout_progress import (
    check_deadline,
    give_up,
    hear_judgement,
    hear_replicas,
    prepare,
    resume,
    unchanged,
)
from service.rollout_requests import (
    begin_change,
    begin_level,
    begin_rollback,
    check_generation,
    join_change,
    take_back,
    turn_back,
    wait_for_other,
)


def advance(state: RolloutState, event: Event) -> Transition:
    """Return the state after ``event`` and what is to be done once that state is on disk.

    Raises:
        Conflict: a request that another running operation, or the lack of a previous variant, stands against.
        PreconditionFailed: a request that was made for another generation.
        IllegalTransition: the event cannot happen in this phase.
    """
    if isinstance(event, (ChangeRequested, RollbackRequested)):
        check_generation(state, event.expected_generation)
    handler = TRANSITIONS.get((state.phase, type(event)))
    if handler is None:
        raise IllegalTransition(f"{type(event).__name__} in phase {state.phase or 'idle'}. This is a bug.")
    changed, actions = handler(state, event)
    return (state if changed == state else replace(changed, version=state.version + 1)), actions


TRANSITIONS: dict[tuple[Phase | None, type[Event]], Callable[[RolloutState, Any], Transition]] = {
    (None, ChangeRequested): begin_change,
    (None, RollbackRequested): begin_rollback,
    (None, LevelChosen): begin_level,
    (None, ReplicasReported): unchanged,
    (None, GuardTripped): turn_back,
    (None, Tick): unchanged,
    (None, Restarted): resume,
    (Phase.BUILDING, ChangeRequested): join_change,
    (Phase.BUILDING, RollbackRequested): take_back,
    (Phase.BUILDING, LevelChosen): wait_for_other,
    (Phase.BUILDING, Built): prepare,
    (Phase.BUILDING, Broken): give_up,
    (Phase.BUILDING, ReplicasReported): unchanged,
    (Phase.BUILDING, GuardTripped): turn_back,
    (Phase.BUILDING, Tick): check_deadline,
    (Phase.BUILDING, Restarted): resume,
    (Phase.PREPARING, ChangeRequested): join_change,
    (Phase.PREPARING, RollbackRequested): take_back,
    (Phase.PREPARING, LevelChosen): wait_for_other,
    (Phase.PREPARING, Broken): give_up,
    (Phase.PREPARING, ReplicasReported): hear_replicas,
    (Phase.PREPARING, GuardTripped): turn_back,
    (Phase.PREPARING, Tick): check_deadline,
    (Phase.PREPARING, Restarted): resume,
    (Phase.TRYING, ChangeRequested): join_change,
    (Phase.TRYING, RollbackRequested): take_back,
    (Phase.TRYING, LevelChosen): wait_for_other,
    (Phase.TRYING, Broken): give_up,
    (Phase.TRYING, ReplicasReported): hear_replicas,
    (Phase.TRYING, TrialJudged): hear_judgement,
    (Phase.TRYING, GuardTripped): turn_back,
    (Phase.TRYING, Tick): check_deadline,
    (Phase.TRYING, Restarted): resume,
}
