from dataclasses import replace

from loadtests.admin import Operation
from loadtests.kills import (
    Kill,
    all_came_back,
    cost_of,
    kill_details,
    kill_table,
    nothing_durable_is_lost,
    quiet_between,
    what_answers_nothing_costs_nothing,
)
from loadtests.processes import Part
from loadtests.swaps import Kind, Step
from tests.loadtests.replies import reply

KILL = Kill(
    part=Part.REPLICA,
    pid=7,
    step=Step(sparsity=0.5, kind=Kind.LADDER),
    phase="preparing",
    asked_s=9.0,
    killed_s=10.0,
    back_s=20.0,
    operation=Operation(id="op", phase="committed", generation=3, detail=""),
    generation=3,
    lost=(),
)
CUT = reply(index=0, intended_s=9.9, done_s=10.1, status=0, error="ServerDisconnectedError")
SURVIVED = reply(index=1, intended_s=9.9, done_s=10.3, generation=3)
REFUSED = reply(index=2, intended_s=12.5, done_s=12.6, status=503)
AFTER = reply(index=3, intended_s=21.0, done_s=21.1, generation=3)


def test_what_was_in_flight_is_told_from_what_came_later() -> None:
    cost = cost_of(KILL, [CUT, SURVIVED, REFUSED, AFTER], end_s=30.0)
    assert (cost.in_flight, cost.failed_in_flight, cost.failed_later) == (2, 1, 1)
    assert cost.kinds == {"ServerDisconnectedError": 1, "503": 1}
    assert cost.silent_s == 2.5


def test_a_failure_after_the_next_change_began_is_not_this_kills() -> None:
    assert cost_of(KILL, [REFUSED], end_s=12.0).failed_later == 0


def test_a_request_that_was_due_before_the_kill_and_sent_after_it_was_not_in_flight() -> None:
    late = reply(intended_s=9.9, sent_s=10.2, done_s=10.4, status=0, error="ClientConnectorError")
    cost = cost_of(KILL, [late], end_s=30.0)
    assert (cost.in_flight, cost.failed_later) == (0, 1)
    assert round(cost.silent_s, 3) == 0.2


def test_what_does_not_come_back_breaks_the_run() -> None:
    assert all_came_back([KILL], 1).held
    assert not all_came_back([replace(KILL, back_s=None)], 1).held
    assert "only 1 of 2" in all_came_back([KILL], 2).detail


def test_what_is_lost_breaks_the_run_and_is_told() -> None:
    assert nothing_durable_is_lost([KILL]).held
    law = nothing_durable_is_lost([replace(KILL, lost=("generation 4 is forgotten",))])
    assert law.broken == 1 and "replica 7: generation 4 is forgotten" in law.detail


def test_only_parts_that_requests_go_through_may_cost_some() -> None:
    cost = cost_of(KILL, [CUT], end_s=30.0)
    assert what_answers_nothing_costs_nothing([KILL], [cost]).held
    assert not what_answers_nothing_costs_nothing([replace(KILL, part=Part.CONTROLLER)], [cost]).held


def test_once_all_is_back_every_request_is_answered_under_what_is_committed() -> None:
    assert quiet_between([KILL], [CUT, REFUSED, AFTER]).held
    assert not quiet_between([KILL], [replace(AFTER, status=503)]).held
    assert not quiet_between([KILL], [replace(AFTER, generation=2)]).held
    following = replace(KILL, asked_s=21.05, back_s=40.0)
    assert quiet_between([KILL, following], [replace(AFTER, generation=2)]).held  # it ran into the next change


def test_every_kill_has_its_row_and_its_figures() -> None:
    kills = [KILL, replace(KILL, back_s=None)]
    costs = [cost_of(kill, [CUT, REFUSED], end_s=30.0) for kill in kills]
    first, second = kill_table(kills, costs).rows
    assert first[:3] == ("replica", "ladder 0.5, preparing", "committed")
    assert first[-1] == "10.0" and second[-1] == "never"
    assert [one["all_back_s"] for one in kill_details(kills, costs)] == [10.0, None]
