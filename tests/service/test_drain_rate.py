import pytest

from service.drain_rate import DrainRate


def test_retry_after_is_at_least_a_second_and_follows_the_latest_batches() -> None:
    rate = DrainRate()
    assert rate.seconds_for(10_000) == 1
    rate.record(tokens=100, arrived=0.0, end=1.0)
    assert rate.seconds_for(10) == 1
    assert rate.seconds_for(250) == 3
    for second in range(1, 101):
        rate.record(tokens=10, arrived=float(second), end=second + 1.0)
    assert rate.seconds_for(250) == 25


def test_what_waits_needs_its_share_of_a_second_and_nothing_before_anything_is_measured() -> None:
    rate = DrainRate()
    assert rate.seconds(10_000) == 0.0
    rate.record(tokens=100, arrived=0.0, end=1.0)
    assert rate.seconds(25) == 0.25


def test_a_queue_that_two_lanes_empty_drains_twice_as_fast() -> None:
    rate = DrainRate()
    for second in range(100):
        for _ in range(2):
            rate.record(tokens=10, arrived=float(second), end=second + 1.0)
    assert rate.seconds_for(200) == 10


def test_time_without_batches_is_no_time_of_draining() -> None:
    rate = DrainRate()
    rate.record(tokens=10, arrived=0.0, end=1.0)
    rate.record(tokens=10, arrived=100.0, end=101.0)
    assert rate.seconds_for(45) == 5


def test_time_in_which_something_waits_and_nothing_runs_makes_the_queue_slower() -> None:
    rate = DrainRate()
    rate.record(tokens=10, arrived=0.0, end=1.0)
    rate.record(tokens=10, arrived=0.5, end=4.0)
    assert rate.seconds(19) == pytest.approx(3.9)
