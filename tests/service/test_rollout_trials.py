from dataclasses import replace

import pytest

from service.events import ChangeRequested, Tick
from service.operations import Cause, Phase
from service.rollout import advance
from tests.service.control_parts import DENSE, HALF, choice_of, id_of
from tests.service.rollout_parts import CANARY, after, built, change, in_phase, judged, replied, reported


def test_a_trial_begins_when_all_are_prepared_and_a_commit_waits_for_its_judgement() -> None:
    state = in_phase(Phase.TRYING)
    assert (state.generation, state.committed) == (1, choice_of(DENSE))
    assert after(state, reported()) == state
    passed = after(state, judged())
    assert passed.phase is Phase.TRYING and passed.generation == 1
    assert after(passed, reported(prepared="a")) == passed
    done = after(passed, reported())
    assert (done.phase, done.generation, done.committed.variant_id) == (None, 2, id_of(HALF))


def test_what_was_seen_of_a_trial_stays_with_the_operation() -> None:
    done = after(in_phase(Phase.TRYING), judged(), reported()).history[-1]
    assert (done.phase, done.trial) == (Phase.COMMITTED, "seen")


def untried(now: float) -> ChangeRequested:
    return replace(change(operation_id="op9", now=now), untried=True)


def test_the_same_wish_without_a_trial_ends_the_one_that_runs() -> None:
    trying = in_phase(Phase.TRYING)
    state, actions = advance(trying, untried(now=16.0))
    assert replied(actions).id == "op1"
    assert state.operation is not None and state.operation.trial == "ended by request after 1.0 s"
    assert after(state, Tick(now=70.0)) == state
    done = after(state, reported())
    assert (done.phase, done.generation, done.committed.variant_id) == (None, 2, id_of(HALF))
    assert after(trying, change(operation_id="op9")) == trying


def test_the_same_wish_without_a_trial_leaves_out_one_that_is_to_come() -> None:
    building = after(in_phase(None), replace(change(), canary=CANARY))
    assert after(building, built(), reported()).phase is Phase.TRYING
    assert after(building, change(operation_id="op9"), built(), reported()).phase is Phase.TRYING
    assert after(building, untried(now=11.0), built(), reported()).committed.variant_id == id_of(HALF)


@pytest.mark.parametrize("cause", [Cause.AGREEMENT, Cause.ERRORS, Cause.LATENCY])
def test_what_does_not_pass_its_trial_is_turned_back_and_nothing_was_swapped(cause: Cause) -> None:
    state = after(in_phase(Phase.TRYING), judged(cause))
    ended = state.history[-1]
    assert (ended.phase, ended.error_type, ended.error) == (Phase.ROLLED_BACK, cause, "seen")
    assert (state.phase, state.generation, state.committed) == (None, 1, choice_of(DENSE))
    assert state.distrusted == ((id_of(HALF),) if cause is Cause.AGREEMENT else ())


def test_what_disagreed_in_a_trial_is_trusted_again_once_an_operator_commits_it() -> None:
    distrusted = after(in_phase(Phase.TRYING), judged(Cause.AGREEMENT))
    again = after(distrusted, change(operation_id="op2"), built(operation_id="op2"), reported(of="op2"))
    assert (again.committed.variant_id, again.distrusted) == (id_of(HALF), ())


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
