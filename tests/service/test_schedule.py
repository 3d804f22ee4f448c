from hypothesis import given
from hypothesis import strategies as st

from service.schedule import WORTH_A_CORE, Lane, Schedule

BUDGET = 100
PLENTY = 8 * WORTH_A_CORE


def test_a_lone_request_runs_on_all_cores() -> None:
    assert Schedule(2).next_lane(1, PLENTY) is Lane.WIDE


def test_a_request_for_every_core_gets_one_core_each() -> None:
    assert Schedule(4).next_lane(3, PLENTY) is Lane.WIDE
    assert Schedule(4).next_lane(4, PLENTY) is Lane.NARROW


def test_requests_with_little_work_for_each_core_run_on_all_of_them_together() -> None:
    assert Schedule(4).next_lane(4, 4 * WORTH_A_CORE - 1) is Lane.WIDE
    assert Schedule(4).next_lane(4, 4 * WORTH_A_CORE) is Lane.NARROW


def test_nothing_runs_beside_a_batch_on_all_cores() -> None:
    schedule = Schedule(2)
    schedule.begin(Lane.WIDE, 10)
    assert schedule.next_lane(9, PLENTY) is None
    schedule.end(Lane.WIDE, 10)
    assert schedule.next_lane(9, PLENTY) is Lane.NARROW


def test_a_request_that_comes_while_a_core_is_idle_takes_it_at_once() -> None:
    schedule = Schedule(2)
    schedule.begin(Lane.NARROW, 10)
    assert schedule.next_lane(1, 1) is Lane.NARROW


def test_without_narrow_lanes_all_batches_run_one_after_the_other() -> None:
    schedule = Schedule(0)
    assert schedule.next_lane(50, PLENTY) is Lane.WIDE
    schedule.begin(Lane.WIDE, 10)
    assert schedule.next_lane(50, PLENTY) is None


def test_narrow_lanes_share_all_that_waits_and_runs() -> None:
    schedule = Schedule(2)
    assert schedule.budget(Lane.NARROW, 30, BUDGET) == 15
    schedule.begin(Lane.NARROW, 4)
    assert schedule.budget(Lane.NARROW, 30, BUDGET) == 17
    assert schedule.budget(Lane.NARROW, 1000, BUDGET) == BUDGET
    assert schedule.budget(Lane.WIDE, 30, BUDGET) == BUDGET


events = st.lists(st.one_of(st.integers(1, 60), st.just(None)), max_size=60)
"""A request of so many tokens arrives, or the batch that began first ends."""


@given(st.sampled_from([0, 2, 3, 8]), events)
def test_no_core_is_idle_while_requests_wait(narrow: int, plan: list[int | None]) -> None:
    schedule = Schedule(narrow, worth_a_core=20)
    waiting: list[int] = []
    running: list[tuple[Lane, int]] = []
    for event in plan:
        if event is not None:
            waiting.append(event)
        elif running:
            schedule.end(*running.pop(0))
        while (lane := schedule.next_lane(len(waiting), sum(waiting))) is not None:
            budget = schedule.budget(lane, sum(waiting), BUDGET)
            assert 1 <= budget <= BUDGET
            tokens = waiting.pop(0)
            while waiting and tokens + waiting[0] <= budget:
                tokens += waiting.pop(0)
            schedule.begin(lane, tokens)
            running.append((lane, tokens))
        lanes = [lane for lane, _ in running]
        assert lanes in ([], [Lane.WIDE]) or lanes == [Lane.NARROW] * len(lanes)
        assert len(lanes) <= max(1, narrow)
        assert not waiting or lanes == [Lane.WIDE] or len(lanes) == narrow
