import json

import pytest

from loadtests.histogram import RELATIVE_ERROR
from loadtests.phases import Window, seconds_of, split_by_windows, summarize
from tests.loadtests.replies import reply


@pytest.mark.parametrize(
    ("intended_s", "done_s", "touches"),
    [(0.0, 0.9, False), (0.0, 1.1, True), (1.5, 1.6, True), (1.9, 9.0, True), (0.0, 9.0, True), (2.1, 2.2, False)],
)
def test_a_window_is_touched_by_what_was_due_or_waiting_in_it(intended_s: float, done_s: float, touches: bool) -> None:
    assert Window(start_s=1.0, end_s=2.0).touches(reply(intended_s=intended_s, done_s=done_s)) is touches


def test_replies_are_split_without_loss() -> None:
    windows = [Window(start_s=1.0, end_s=2.0), Window(start_s=4.0, end_s=5.0)]
    replies = [reply(index=index, intended_s=index / 2, done_s=index / 2 + 0.1) for index in range(12)]
    inside, outside = split_by_windows(replies, windows)
    assert [each.index for each in inside] == [2, 3, 8, 9]
    assert len(inside) + len(outside) == len(replies)
    assert seconds_of(windows) == 2.0


def test_a_phase_counts_failures_and_times_good_answers_only() -> None:
    replies = [
        reply(done_s=0.1),
        reply(done_s=0.2),
        reply(done_s=9.0, status=500),
        reply(status=0, error="TimeoutError"),
    ]
    phase = summarize("steady", replies, seconds=2.0, offered_rate=2.0)
    assert phase.requests == 4
    assert phase.failed == 2
    assert phase.failures == {"500": 1, "TimeoutError": 1}
    assert phase.achieved_rate == 1.0
    assert phase.latency.max_s == 0.2
    assert phase.latency.quantile(0.5) == pytest.approx(0.1, rel=RELATIVE_ERROR)


def test_the_send_lag_is_kept_apart() -> None:
    phase = summarize("steady", [reply(intended_s=1.0, sent_s=1.5, done_s=2.0)], seconds=1.0)
    assert phase.lag.max_s == 0.5
    assert phase.latency.max_s == 1.0


def test_an_empty_phase_is_still_valid_json() -> None:
    figures = summarize("empty", [], seconds=0.0).as_dict()
    assert json.loads(json.dumps(figures, allow_nan=False))["p99_s"] is None
