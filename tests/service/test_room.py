"""How long a request may wait."""

from dataclasses import replace

import pytest

from service.errors import Overloaded, TooLarge
from service.load_meter import LoadMeter
from service.policy import Policy
from service.room import WAIT_SHARE, Room, room_under
from service.settings import Settings

POLICY = Policy(accuracy_floor=0.0)


def room_of(target_wait_s: float | None = None, *, max_tokens: int = 1000, max_wait_s: float = 2.0) -> Room:
    """Return one that drains at a hundred tokens a second."""
    room = Room(
        max_tokens=max_tokens,
        full_batch=50,
        max_wait_s=max_wait_s,
        target_wait_s=lambda: target_wait_s,
        meter=LoadMeter(),
    )
    room.rate.record(tokens=100, arrived=0.0, end=1.0)
    return room


@pytest.mark.parametrize(("target_s", "limit"), [(None, 200), (0.3, 30), (60.0, 200)])
def test_a_target_shortens_the_longest_wait_and_never_lengthens_it(target_s: float | None, limit: int) -> None:
    assert room_of(target_s).limit_tokens(quick_batch=5) == limit


def test_a_policy_that_changes_counts_at_once() -> None:
    policies = [POLICY]
    settings = Settings(max_batch_tokens=10, max_queue_tokens=1000, max_queue_s=2.0)
    room = room_under(settings, lambda: policies[-1], LoadMeter())
    room.rate.record(tokens=100, arrived=0.0, end=1.0)
    room.check(waiting=150, tokens=1, quick_batch=5)
    policies.append(replace(POLICY, slo_p99_ms=500.0))
    with pytest.raises(Overloaded, match=f"150 of {50 * WAIT_SHARE:g} tokens wait"):
        room.check(waiting=150, tokens=1, quick_batch=5)


def test_a_batch_may_wait_whatever_the_rate_a_full_one_where_there_is_no_target() -> None:
    assert room_of(max_wait_s=0.1).limit_tokens(quick_batch=20) == 50
    assert room_of(0.1).limit_tokens(quick_batch=20) == 20
    assert room_of(0.1).limit_tokens(quick_batch=60) == 50
    room_of(max_wait_s=0.1).check(waiting=49, tokens=900, quick_batch=20)


def test_the_bound_in_tokens_holds_however_fast_the_queue_drains() -> None:
    room = room_of(max_tokens=200, max_wait_s=1e6)
    assert room.limit_tokens(quick_batch=500) == 200
    room.check(waiting=100, tokens=100, quick_batch=1)
    with pytest.raises(Overloaded):
        room.check(waiting=100, tokens=101, quick_batch=1)
    with pytest.raises(TooLarge, match="201 tokens; at most 200"):
        room.check_size(201)
    room.check_size(200)


def test_every_refusal_is_counted() -> None:
    meter = LoadMeter()
    room = Room(max_tokens=10, full_batch=1, max_wait_s=1.0, target_wait_s=lambda: None, meter=meter)
    for _ in range(3):
        with pytest.raises(Overloaded):
            room.check(waiting=10, tokens=1, quick_batch=1)
    assert meter.load(queue_tokens=0, queue_s=0.0).refused == 3
