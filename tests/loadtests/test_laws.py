from loadtests.laws import Goal, generation_never_goes_back, no_failed_request
from tests.loadtests.replies import reply


def test_a_failed_request_breaks_the_law_and_is_told_by_kind() -> None:
    law = no_failed_request([reply(), reply(status=429), reply(status=0, error="ServerDisconnectedError")])
    assert not law.held
    assert law.broken == 2
    assert "1 x 429" in law.detail and "1 x ServerDisconnectedError" in law.detail


def test_all_answered_holds_the_law() -> None:
    assert no_failed_request([reply(), reply()]).held


def test_a_generation_that_goes_back_on_one_connection_is_found() -> None:
    replies = [reply(done_s=number, generation=generation) for number, generation in enumerate([1, 2, 1, 2], start=1)]
    law = generation_never_goes_back(replies)
    assert law.broken == 1
    assert "2 then 1" in law.detail


def test_another_connection_may_still_see_the_older_generation() -> None:
    replies = [reply(done_s=1, generation=2, connection=0), reply(done_s=2, generation=1, connection=1)]
    assert generation_never_goes_back(replies).held


def test_the_order_of_answers_counts_and_not_the_order_of_the_list() -> None:
    assert generation_never_goes_back([reply(done_s=2, generation=2), reply(done_s=1, generation=1)]).held


def test_an_answer_without_a_generation_breaks_the_law_but_a_failed_request_has_none() -> None:
    assert generation_never_goes_back([reply(generation=None)]).broken == 1
    assert generation_never_goes_back([reply(status=500, generation=None)]).held


def test_a_goal_that_is_no_number_is_not_met() -> None:
    assert Goal(name="ratio", value=1.4, limit=1.5).met
    assert not Goal(name="ratio", value=float("nan"), limit=1.5).met
