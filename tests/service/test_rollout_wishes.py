from dataclasses import replace

import pytest

from pruning.spec import Pattern, PruneSpec
from service.errors import Conflict, PreconditionFailed
from service.events import Announce, ChangeRequested, Event, Reply, RollbackRequested, StartBuild
from service.operations import Asker, Cause, Kind, Phase
from service.rollout import advance
from tests.service.control_parts import DENSE, HALF, MORE, choice_of, first_state, id_of
from tests.service.rollout_parts import EVENTS, after, built, change, in_phase, level, replied, reported


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


@pytest.mark.parametrize("event", [ChangeRequested, RollbackRequested])
def test_a_request_for_another_generation_changes_nothing(event: type[Event]) -> None:
    state = replace(first_state(), generation=7, previous=choice_of(HALF))
    for expected in (6, 8):
        with pytest.raises(PreconditionFailed) as refused:
            advance(state, replace(EVENTS[event], expected_generation=expected))
        assert refused.value.extensions == {"generation": 7}
    changed, _ = advance(state, replace(EVENTS[event], expected_generation=7))
    assert changed.operation is not None


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
