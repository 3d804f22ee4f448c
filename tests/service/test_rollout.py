from typing import get_args

import pytest

from service.errors import Conflict
from service.events import (
    Announce,
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
from service.operations import HISTORY_LIMIT, Cause, Phase
from service.rollout import TRANSITIONS, advance
from service.rollout_ends import IllegalTransition
from tests.service.control_parts import DENSE, FLOOR, HALF, choice_of, first_state, id_of
from tests.service.rollout_parts import EVENTS, after, broken, built, change, in_phase, reported

LEGAL: dict[Phase | None, set[type[Event]]] = {
    None: {ChangeRequested, RollbackRequested, LevelChosen, ReplicasReported, GuardTripped, Tick, Restarted},
    Phase.BUILDING: {
        ChangeRequested,
        RollbackRequested,
        Built,
        Broken,
        ReplicasReported,
        GuardTripped,
        Tick,
        Restarted,
    },
    Phase.PREPARING: {ChangeRequested, RollbackRequested, Broken, ReplicasReported, GuardTripped, Tick, Restarted},
    Phase.TRYING: {
        ChangeRequested,
        RollbackRequested,
        Broken,
        ReplicasReported,
        TrialJudged,
        GuardTripped,
        Tick,
        Restarted,
    },
}

BUSY = {(phase, LevelChosen) for phase in (Phase.BUILDING, Phase.PREPARING, Phase.TRYING)}
"""Pairs that are decided by a refusal, for the sake of the operation that runs."""


def test_the_examples_cover_every_event() -> None:
    assert set(EVENTS) == set(get_args(Event))


@pytest.mark.parametrize("kind", EVENTS)
@pytest.mark.parametrize("phase", [None, *Phase])
def test_every_pair_of_phase_and_event_is_decided(phase: Phase | None, kind: type[Event]) -> None:
    state, event = in_phase(phase), EVENTS[kind]
    if (phase, kind) in BUSY:
        with pytest.raises(Conflict, match="op1"):
            advance(state, event)
    elif kind in LEGAL.get(phase, set()):
        changed, _ = advance(state, event)
        assert changed.version == state.version + (changed != state)
    else:
        assert (phase, kind) not in TRANSITIONS
        with pytest.raises(IllegalTransition, match="bug"):
            advance(state, event)


def test_a_change_is_built_prepared_and_committed() -> None:
    state, actions = advance(first_state(), change())
    assert StartBuild("op1", HALF) in actions
    assert state.phase is Phase.BUILDING
    state = after(state, built())
    assert (state.phase, state.generation, state.committed) == (Phase.PREPARING, 1, choice_of(DENSE))
    state, actions = advance(state, reported())
    assert (state.phase, state.generation) == (None, 2)
    assert (state.committed.variant_id, state.committed.spec) == (id_of(HALF), HALF)
    assert state.previous == choice_of(DENSE)
    done = state.find("op1")
    assert done is not None and actions == (Announce(done),)
    assert (done.phase, done.generation, done.accuracy) == (Phase.COMMITTED, 2, 0.88)
    assert done.durations_s() == {"build": 2.0, "prepare": 3.0, "total": 5.0}
    assert (done.created_at, done.finished_at) == (10.0, 15.0)


@pytest.mark.parametrize(("live", "prepared"), [("", ""), ("", "ab"), ("ab", "a"), ("abc", "ab"), ("ab", "")])
def test_nothing_commits_before_every_live_replica_has_prepared(live: str, prepared: str) -> None:
    state = in_phase(Phase.PREPARING)
    assert advance(state, reported(live, prepared)) == (state, ())


def test_a_replica_that_died_is_not_waited_for() -> None:
    assert after(in_phase(Phase.PREPARING), reported("a", "ab")).generation == 2


def test_reports_of_another_operation_change_nothing() -> None:
    state = in_phase(Phase.PREPARING)
    assert advance(state, reported(of="op0")) == (state, ())


def test_one_replicas_failure_rolls_back_and_names_it() -> None:
    before = in_phase(Phase.PREPARING)
    state = after(before, reported(prepared="a", failed={"b": "out of memory"}))
    ended = state.find("op1")
    assert ended is not None and state.operation is None
    assert (ended.phase, ended.error_type) == (Phase.ROLLED_BACK, Cause.REPLICA)
    assert ended.error == "replica b: out of memory"
    assert (state.generation, state.committed, state.previous) == (1, before.committed, before.previous)


def test_the_failure_of_a_dead_replica_does_not_count() -> None:
    assert after(in_phase(Phase.PREPARING), reported("a", "a", {"b": "out of memory"})).generation == 2


def test_a_variant_below_the_floor_fails_with_both_numbers() -> None:
    state = after(in_phase(Phase.BUILDING), built(accuracy=0.8123))
    ended = state.find("op1")
    assert ended is not None and state.operation is None
    assert (ended.phase, ended.error_type) == (Phase.FAILED, Cause.ACCURACY_FLOOR)
    assert ended.error is not None and "0.8123" in ended.error and "0.8500" in ended.error
    assert (ended.variant_id, ended.accuracy) == (id_of(HALF), 0.8123)
    assert state.generation == 1


def test_a_variant_at_the_floor_is_let_through() -> None:
    assert after(in_phase(Phase.BUILDING), built(accuracy=FLOOR)).phase is Phase.PREPARING


def test_a_broken_build_fails_and_a_broken_preparation_rolls_back() -> None:
    assert after(in_phase(Phase.BUILDING), broken()).history[-1].phase is Phase.FAILED
    assert after(in_phase(Phase.PREPARING), broken()).history[-1].phase is Phase.ROLLED_BACK


@pytest.mark.parametrize(
    ("phase", "waiting", "words", "end"),
    [
        (Phase.BUILDING, "", "not built in time", Phase.FAILED),
        (Phase.PREPARING, "ba", "by replica a, b", Phase.ROLLED_BACK),
        (Phase.PREPARING, "", "no replica was there", Phase.ROLLED_BACK),
    ],
)
def test_a_deadline_ends_the_operation_and_says_who_is_late(phase: Phase, waiting: str, words: str, end: Phase) -> None:
    state = in_phase(phase)
    assert state.operation is not None
    assert advance(state, Tick(now=state.operation.deadline - 0.1)) == (state, ())
    ended = after(state, Tick(now=state.operation.deadline, waiting=frozenset(waiting))).history[-1]
    assert (ended.phase, ended.error_type) == (end, Cause.DEADLINE)
    assert ended.error is not None and words in ended.error


def test_an_event_of_an_operation_that_does_not_run_is_a_bug() -> None:
    with pytest.raises(IllegalTransition, match="op0"):
        advance(in_phase(Phase.BUILDING), built(operation_id="op0"))


def test_the_history_is_bounded_and_keeps_the_latest() -> None:
    state = first_state()
    for number in range(HISTORY_LIMIT + 5):
        state = after(state, change(operation_id=f"n{number}"), broken(f"n{number}"))
    assert len(state.history) == HISTORY_LIMIT
    assert state.find("n4") is None
    assert state.find(f"n{HISTORY_LIMIT + 4}") is not None
