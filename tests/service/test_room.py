"""How long a request may wait."""

from dataclasses import replace

import pytest

from service.errors import Overloaded, TooLarge
from service.load_meter import LoadMeter
from service.policy import Policy
from service.room import WAIT_SHARE, Room, longest_wait

POLICY = Policy(accuracy_floor=0.0)


def room_of(max_wait_s: float, *, max_tokens: int = 1000) -> Room:
    room = Room(max_tokens=max_tokens, max_wait_s=lambda: max_wait_s, meter=LoadMeter())
    room.rate.record(tokens=100, arrived=0.0, end=1.0)
    return room


@pytest.mark.parametrize(("target_ms", "wait_s"), [(None, 2.0), (500.0, 0.5 * WAIT_SHARE), (60_000.0, 2.0)])
def test_a_latency_target_shortens_the_longest_wait_and_never_lengthens_it(
    target_ms: float | None, wait_s: float
) -> None:
    wait = longest_wait(2.0, lambda: replace(POLICY, slo_p99_ms=target_ms))
    assert wait() == pytest.approx(wait_s)


def test_a_policy_that_changes_counts_at_once() -> None:
    policies = [POLICY]
    room = Room(max_tokens=1000, max_wait_s=longest_wait(2.0, lambda: policies[-1]), meter=LoadMeter())
    room.rate.record(tokens=100, arrived=0.0, end=1.0)
    room.check(waiting=150, tokens=1, one_batch=10)
    policies.append(replace(POLICY, slo_p99_ms=500.0))
    with pytest.raises(Overloaded, match="150 of 30 tokens wait"):
        room.check(waiting=150, tokens=1, one_batch=10)


def test_one_batch_may_wait_whatever_the_rate() -> None:
    room = room_of(0.1)
    assert room.limit_tokens(one_batch=5) == 10
    assert room.limit_tokens(one_batch=50) == 50
    room.check(waiting=49, tokens=900, one_batch=50)


def test_the_bound_in_tokens_holds_however_fast_the_queue_drains() -> None:
    room = room_of(1e6, max_tokens=200)
    assert room.limit_tokens(one_batch=500) == 200
    room.check(waiting=100, tokens=100, one_batch=1)
    with pytest.raises(Overloaded):
        room.check(waiting=100, tokens=101, one_batch=1)
    with pytest.raises(TooLarge, match="201 tokens; at most 200"):
        room.check_size(201)
    room.check_size(200)


def test_every_refusal_is_counted() -> None:
    meter = LoadMeter()
    room = Room(max_tokens=10, max_wait_s=lambda: 1.0, meter=meter)
    for _ in range(3):
        with pytest.raises(Overloaded):
            room.check(waiting=10, tokens=1, one_batch=1)
    assert meter.load(queue_tokens=0, queue_s=0.0).refused == 3
