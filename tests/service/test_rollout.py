from dataclasses import replace
from typing import get_args

import pytest

from pruning.spec import Pattern, PruneSpec
from service.errors import Conflict, PreconditionFailed
from service.events import (
    Action,
    Announce,
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
    StartBuild,
    Tick,
    TrialJudged,
)
from service.operations import (
    HISTORY_LIMIT,
    Asker,
    Canary,
    Cause,
    Choice,
    Kind,
    Operation,
    Phase,
    RolloutState,
)
from service.rollout import TRANSITIONS, advance
from service.rollout_ends import IllegalTransition
from tests.service.control_parts import DENSE, FLOOR, choice_of, first_state, id_of

HALF, MORE = PruneSpec(sparsity=0.5), PruneSpec(sparsity=0.7)
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


def test_the_running_wish_again_is_the_same_operation() -> None:
    for phase in (Phase.BUILDING, Phase.PREPARING):
        state = in_phase(phase)
        again, actions = advance(state, change(operation_id="op9"))
        assert again == state
        assert replied(actions).id == "op1"


def test_another_wish_meanwhile_is_a_conflict_that_names_the_running_operation() -> None:
    with pytest.raises(Conflict, match="op1") as refusal:
        advance(in_phase(Phase.BUILDING), change(MORE, "op9"))
    assert refusal.value.extensions["operation"] == "op1"


def test_the_committed_wish_again_is_the_operation_that_committed_it() -> None:
    state = after(in_phase(Phase.PREPARING), reported())
    again, actions = advance(state, change(operation_id="op9"))
    assert (again, replied(actions).id) == (state, "op1")


def test_a_wish_for_the_first_variant_makes_one_finished_operation() -> None:
    state, actions = advance(first_state(), change(DENSE))
    done = replied(actions)
    assert (done.phase, done.generation, done.finished) == (Phase.COMMITTED, 1, True)
    assert (state.generation, state.operation) == (1, None)
    assert advance(state, change(DENSE, "op9")) == (state, (Reply(done),))


TAYLOR_DENSE = PruneSpec(sparsity=0.0, scorer="taylor", pattern=Pattern.UNSTRUCTURED)


def test_nothing_removed_is_one_wish_however_it_is_spelt() -> None:
    state, actions = advance(first_state(), change(TAYLOR_DENSE))
    assert replied(actions).phase is Phase.COMMITTED
    assert (state.generation, state.previous) == (1, None)
    running = after(in_phase(None), change(HALF), built(), reported(), change(DENSE, "op3"))
    assert replied(advance(running, change(TAYLOR_DENSE, "op9"))[1]).id == "op3"


def test_a_committed_variant_that_may_be_out_of_date_is_built_again_and_replaced_by_what_that_gives() -> None:
    state = after(in_phase(Phase.PREPARING), reported())
    state, actions = advance(state, change(HALF, "op3", stands=False))
    assert StartBuild("op3", HALF) in actions
    state = after(state, built(operation_id="op3", variant_id="anew"), reported(of="op3"))
    assert (state.generation, state.committed.variant_id) == (3, "anew")
    assert state.previous is not None and state.previous.variant_id == id_of(HALF)


def test_a_build_that_gives_the_committed_variant_swaps_nothing() -> None:
    before = after(in_phase(Phase.PREPARING), reported())
    state, actions = advance(after(before, change(HALF, "op3", stands=False)), built(operation_id="op3"))
    done = state.find("op3")
    assert done is not None and actions == (Announce(done),)
    assert (done.phase, done.generation, done.variant_id) == (Phase.COMMITTED, 2, id_of(HALF))
    assert (state.generation, state.operation, state.previous) == (2, None, before.previous)
    assert replied(advance(state, change(HALF, "op9"))[1]).id == "op3"


def test_the_committed_variant_asked_for_again_below_a_raised_floor_is_refused_and_stays() -> None:
    before = after(in_phase(Phase.PREPARING), reported())
    state = after(before, change(HALF, "op3", stands=False), built(accuracy=0.8, operation_id="op3"))
    assert state.history[-1].error_type is Cause.ACCURACY_FLOOR
    assert (state.generation, state.committed) == (2, before.committed)


def test_rollback_prepares_the_previous_variant_without_a_build_and_can_be_rolled_back() -> None:
    state = after(in_phase(Phase.PREPARING), reported())
    state, actions = advance(state, rollback())
    operation = replied(actions)
    assert (operation.kind, operation.phase, operation.variant_id) == (Kind.ROLLBACK, Phase.PREPARING, id_of(DENSE))
    assert not any(isinstance(action, StartBuild) for action in actions)
    state = after(state, reported(of="op2", now=31.0))
    assert (state.generation, state.committed.spec) == (3, DENSE)
    assert state.previous is not None and state.previous.spec == HALF


@pytest.mark.parametrize("phase", [Phase.BUILDING, Phase.PREPARING])
@pytest.mark.parametrize("has_previous", [True, False])
def test_a_rollback_takes_back_the_change_that_runs_and_moves_no_traffic(phase: Phase, has_previous: bool) -> None:
    before = in_phase(phase) if has_previous else replace(in_phase(phase), previous=None)
    state, actions = advance(before, rollback())
    ended = replied(actions)
    assert (ended.id, ended.phase, ended.error_type) == ("op1", Phase.ROLLED_BACK, Cause.CANCELLED)
    assert ended.error is not None and str(phase) in ended.error
    assert Announce(ended) in actions
    assert state == replace(before, version=before.version + 1, operation=None, history=(ended,))


def test_a_second_rollback_joins_the_first() -> None:
    state = after(in_phase(Phase.PREPARING), reported(), rollback())
    again, actions = advance(state, rollback("op9"))
    assert (again, replied(actions).id) == (state, "op2")


def test_rollback_needs_a_previous_variant_above_the_floor() -> None:
    with pytest.raises(Conflict, match="PUT /admin/sparsity"):
        advance(first_state(), rollback())
    with pytest.raises(Conflict, match=r"0\.9000 is below the floor 0\.9500"):
        advance(in_phase(None), rollback(floor=0.95))


def test_a_restart_starts_the_build_again() -> None:
    state, actions = advance(in_phase(Phase.BUILDING), EVENTS[Restarted])
    assert StartBuild("op1", HALF) in actions
    assert state.operation is not None and state.operation.deadline == 80.0


def test_a_restart_resumes_a_preparation_after_one_lease() -> None:
    state, actions = advance(in_phase(Phase.PREPARING), EVENTS[Restarted])
    assert not any(isinstance(action, StartBuild) for action in actions)
    assert after(state, reported(now=22.9)).generation == 1
    assert after(state, reported(now=23.0)).generation == 2


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.TRYING])
def test_a_floor_that_is_raised_meanwhile_is_held_by_what_is_committed(phase: Phase) -> None:
    before = in_phase(phase)
    assert before.operation is not None
    ready = replace(before, operation=replace(before.operation, passed=True))
    state, _ = advance(ready, reported(floor=0.89))
    ended = state.history[-1]
    assert (ended.phase, ended.error_type, state.generation) == (Phase.ROLLED_BACK, Cause.ACCURACY_FLOOR, 1)
    assert advance(ready, reported(floor=0.88))[0].generation == 2


def test_a_preparation_below_a_raised_floor_is_not_resumed() -> None:
    before = in_phase(Phase.PREPARING)
    state, actions = advance(before, replace(EVENTS[Restarted], accuracy_floor=0.89))
    ended = state.find("op1")
    assert ended is not None and actions == (Announce(ended),)
    assert (ended.phase, ended.error_type) == (Phase.ROLLED_BACK, Cause.ACCURACY_FLOOR)
    assert ended.error is not None and "0.8800" in ended.error and "0.8900" in ended.error
    assert (state.operation, state.generation, state.committed) == (None, 1, before.committed)
    assert state.hold_until == 23.0


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


@pytest.mark.parametrize("event", [ChangeRequested, RollbackRequested])
def test_a_request_for_another_generation_changes_nothing(event: type[Event]) -> None:
    state = replace(first_state(), generation=7, previous=choice_of(HALF))
    for expected in (6, 8):
        with pytest.raises(PreconditionFailed) as refused:
            advance(state, replace(EVENTS[event], expected_generation=expected))
        assert refused.value.extensions == {"generation": 7}
    changed, _ = advance(state, replace(EVENTS[event], expected_generation=7))
    assert changed.operation is not None


def test_a_trial_begins_when_all_are_prepared_and_a_commit_waits_for_its_judgement() -> None:
    state = in_phase(Phase.TRYING)
    assert (state.generation, state.committed) == (1, choice_of(DENSE))
    assert after(state, reported()) == state
    passed = after(state, judged())
    assert passed.phase is Phase.TRYING and passed.generation == 1
    assert after(passed, reported(prepared="a")) == passed
    done = after(passed, reported())
    assert (done.phase, done.generation, done.committed.variant_id) == (None, 2, id_of(HALF))


@pytest.mark.parametrize("cause", [Cause.AGREEMENT, Cause.ERRORS, Cause.LATENCY])
def test_what_does_not_pass_its_trial_is_turned_back_and_nothing_was_swapped(cause: Cause) -> None:
    state = after(in_phase(Phase.TRYING), judged(cause))
    ended = state.history[-1]
    assert (ended.phase, ended.error_type, ended.error) == (Phase.ROLLED_BACK, cause, "seen")
    assert (state.phase, state.generation, state.committed) == (None, 1, choice_of(DENSE))


def test_a_trial_that_nobody_judges_ends_by_itself() -> None:
    state = in_phase(Phase.TRYING)
    assert state.operation is not None
    assert after(state, Tick(now=state.operation.deadline - 0.1)) == state
    ended = after(state, Tick(now=state.operation.deadline)).history[-1]
    assert (ended.phase, ended.error_type) == (Phase.ROLLED_BACK, Cause.DEADLINE)
    assert "not judged" in (ended.error or "")


def test_a_replica_that_cannot_prepare_ends_a_trial() -> None:
    ended = after(in_phase(Phase.TRYING), reported("abc", failed={"c": "no memory"})).history[-1]
    assert (ended.phase, ended.error_type) == (Phase.ROLLED_BACK, Cause.REPLICA)


def test_the_guard_goes_back_to_the_previous_variant_and_trusts_the_other_no_more() -> None:
    state = replace(first_state(), committed=choice_of(HALF), previous=choice_of(MORE))
    turned = after(state, tripped(HALF))
    assert turned.operation is not None
    assert (turned.operation.kind, turned.operation.asked_by, turned.operation.reason) == (
        Kind.ROLLBACK,
        Asker.GUARD,
        "it disagrees",
    )
    assert turned.operation.spec == MORE and turned.distrusted == (id_of(HALF),)
    done = after(turned, reported(of="guard1"))
    assert done.committed.variant_id == id_of(MORE) and done.distrusted == (id_of(HALF),)
    with pytest.raises(Conflict, match="turned back"):
        advance(done, rollback())


@pytest.mark.parametrize("previous", [None, choice_of(MORE, accuracy=FLOOR - 0.1)])
def test_the_guard_goes_to_its_fallback_where_the_previous_variant_may_not_be_served(previous: Choice | None) -> None:
    state = replace(first_state(), committed=choice_of(HALF), previous=previous)
    turned = after(state, tripped(HALF))
    assert turned.operation is not None and turned.operation.spec == DENSE


def test_the_guard_does_nothing_where_there_is_nowhere_to_go_or_another_variant_serves() -> None:
    assert after(first_state(), tripped(DENSE)) == first_state()
    assert after(first_state(), tripped(HALF)) == first_state()


@pytest.mark.parametrize("phase", [Phase.BUILDING, Phase.PREPARING, Phase.TRYING])
def test_the_guard_takes_back_a_change_that_runs(phase: Phase) -> None:
    state = replace(in_phase(phase), committed=choice_of(MORE), previous=choice_of(DENSE))
    turned = after(state, tripped(MORE))
    assert turned.operation is not None and turned.operation.id == "guard1"
    assert (turned.history[-1].id, turned.history[-1].error_type) == ("op1", Cause.CANCELLED)
    assert after(turned, tripped(MORE)) == turned


def test_a_variant_that_is_asked_for_again_and_committed_is_trusted_again() -> None:
    state = replace(first_state(), distrusted=(id_of(HALF), id_of(MORE)))
    assert after(state, change(), built(), reported()).distrusted == (id_of(MORE),)


def test_a_level_that_the_service_chose_is_prepared_at_once_and_says_why() -> None:
    state, actions = advance(first_state(), level())
    asked = replied(actions)
    assert (asked.phase, asked.kind, asked.variant_id) == (Phase.PREPARING, Kind.SWAP, id_of(MORE))
    assert (asked.asked_by, asked.reason) == (Asker.GOVERNOR, "9 requests a second were refused")
    assert not [action for action in actions if isinstance(action, StartBuild)]
    done = after(state, reported(of="op3", now=41.0))
    assert (done.committed.variant_id, done.committed.operation_id, done.generation) == (id_of(MORE), "op3", 2)
    assert done.history[-1].reason == asked.reason


def test_a_level_below_the_floor_is_refused_whoever_chose_it() -> None:
    with pytest.raises(Conflict, match="below the floor"):
        advance(first_state(), level(accuracy=0.5))
