import pytest

from service.gathering import LONGEST_S, SELDOM, SHARE, Gathering


def answered(requests: int, seconds: float = 0.004) -> Gathering:
    gathering = Gathering()
    gathering.answered(requests, seconds, now_s=10.0)
    return gathering


def test_nobody_is_waited_for_before_anybody_was_answered() -> None:
    assert Gathering().seconds_left(0.0) == 0


def test_a_batch_waits_until_those_who_were_answered_are_back() -> None:
    gathering = answered(2)
    assert gathering.seconds_left(10.0) > 0
    gathering.arrived()
    assert gathering.seconds_left(10.001) > 0
    gathering.arrived()
    assert gathering.seconds_left(10.001) == 0


@pytest.mark.parametrize(("seconds", "longest"), [(0.004, SHARE * 0.004), (1.0, LONGEST_S)])
def test_no_wait_is_longer_than_a_share_of_the_batch_and_a_few_milliseconds(seconds: float, longest: float) -> None:
    gathering = answered(2, seconds)
    assert gathering.seconds_left(10.0) == pytest.approx(longest)
    assert gathering.seconds_left(10.0 + longest) == 0


def test_a_wait_that_is_over_does_not_begin_again() -> None:
    gathering = answered(2)
    gathering.arrived()
    gathering.arrived()
    assert gathering.seconds_left(10.0) == 0
    gathering._missing = 1
    assert gathering.seconds_left(10.0) == 0


def test_those_of_a_batch_beside_are_waited_for_too() -> None:
    gathering = answered(1)
    gathering.answered(1, 0.004, now_s=10.0005)
    gathering.arrived()
    assert gathering.seconds_left(10.001) > 0
    gathering.arrived()
    assert gathering.seconds_left(10.001) == 0


def waits_of(gathering: Gathering, batches: int, *, back: bool) -> int:
    """How many of so many batches wait, where those who were answered come back or do not."""
    waited = 0
    for number in range(batches):
        now_s = 100.0 * (number + 1)
        gathering.answered(1, 0.004, now_s)
        waited += gathering.seconds_left(now_s) > 0
        if back:
            gathering.arrived()
        gathering.seconds_left(now_s + 1)
    return waited


def test_waits_that_do_not_pay_become_seldom_and_come_back_when_they_pay() -> None:
    gathering = Gathering()
    assert waits_of(gathering, 10, back=True) == 10
    waits_of(gathering, 20, back=False)
    assert waits_of(gathering, 10 * SELDOM, back=False) == 10
    waits_of(gathering, 20 * SELDOM, back=True)
    assert waits_of(gathering, 10, back=True) == 10


def test_most_of_them_are_enough() -> None:
    gathering = answered(4)
    for _ in range(3):
        gathering.arrived()
    assert gathering.seconds_left(10.0) > 0
    assert gathering.seconds_left(11.0) == 0
    assert gathering.paid == 1.0
