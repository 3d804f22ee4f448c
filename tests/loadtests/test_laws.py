from loadtests.laws import (
    Goal,
    answered_or_refused,
    generation_never_goes_back,
    no_failed_request,
    refusals_say_when_to_come_back,
)
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


def test_a_refusal_is_no_failure_of_an_overloaded_service_and_everything_else_is() -> None:
    assert answered_or_refused([reply(), reply(status=429)]).held
    law = answered_or_refused([reply(), reply(status=429), reply(status=504), reply(status=0, error="TimeoutError")])
    assert law.broken == 2
    assert "1 x 504" in law.detail and "1 x TimeoutError" in law.detail


def test_a_refusal_without_a_sane_retry_after_breaks_the_law() -> None:
    given = [reply(status=429, retry_after=text) for text in ("1", "12", None, "0", "soon")]
    law = refusals_say_when_to_come_back([*given, reply()])
    assert law.broken == 3
    assert refusals_say_when_to_come_back([*given[:2], reply()]).detail == "1 to 12 s in 2 refusals"
