from dataclasses import replace

import pytest

from service.errors import Conflict
from service.events import Announce, StartBuild
from service.operations import Asker, Cause, Choice, Kind, Phase
from service.rollout import advance
from tests.service.control_parts import DENSE, FLOOR, HALF, MORE, choice_of, first_state, id_of
from tests.service.rollout_parts import after, built, change, in_phase, replied, reported, rollback, tripped


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
