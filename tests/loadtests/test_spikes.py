import math
from dataclasses import replace

import pytest

from loadtests.phases import Window
from loadtests.records import Reply
from loadtests.spikes import Course, Figures, figures_of, timeline
from tests.loadtests.replies import reply

SPIKE = Window(start_s=10.0, end_s=20.0)


def course(*replies: Reply) -> Course:
    return Course(name="governor", replies=replies, spike=SPIKE, end_s=30.0)


def answer(
    intended_s: float, *, took_s: float = 0.1, sparsity: float = 0.0, index: int = 0, label: str = "good"
) -> Reply:
    made = reply(index=index, intended_s=intended_s, done_s=intended_s + took_s, sparsity=sparsity)
    return replace(made, label=label)


def refusal(intended_s: float) -> Reply:
    return reply(intended_s=intended_s, done_s=intended_s + 0.01, status=429, sparsity=None)


def figures(*replies: Reply, dense_labels: tuple[str | None, ...] = ("good",)) -> Figures:
    return figures_of(course(*replies), target_s=0.5, dense_labels=dense_labels)


def test_shares_and_goodput_are_of_the_spike_alone() -> None:
    outside = (answer(1.0, took_s=9.0), refusal(2.0), refusal(25.0))
    inside = (answer(10.0), answer(12.0, took_s=0.6), answer(19.0), refusal(15.0))
    told = figures(*outside, *inside)
    assert told.refused_share == 0.25
    assert told.in_time_per_s == pytest.approx(0.2)
    assert told.late_share == pytest.approx(1 / 3)


def test_agreement_is_with_what_dense_said_of_the_same_body() -> None:
    told = figures(
        answer(11.0, index=0),
        answer(12.0, index=1, label="bad"),
        answer(13.0, index=2, label="bad"),
        answer(14.0, index=3, label="bad"),
        dense_labels=("good", "bad", None),
    )
    assert told.agreement == pytest.approx(2 / 3)
    assert math.isnan(figures(answer(11.0), dense_labels=(None,)).agreement)


def test_it_is_told_when_another_level_answered_first_and_when_it_answered_last() -> None:
    told = figures(
        answer(9.0), answer(11.0), answer(11.5, sparsity=0.5), answer(22.0, sparsity=0.3), answer(22.5), answer(29.0)
    )
    assert told.first_sparser_s == pytest.approx(1.6)
    assert told.back_on_dense_s == pytest.approx(2.1)
    assert told.sparsity == pytest.approx(0.25)


def test_a_level_that_never_moves_is_never_sparser_and_back_at_once() -> None:
    told = figures(answer(11.0), answer(25.0))
    assert (told.first_sparser_s, told.back_on_dense_s) == (math.inf, 0.0)


def test_one_that_ends_on_a_sparse_level_is_not_back() -> None:
    assert figures(answer(11.0), answer(29.0, sparsity=0.5)).back_on_dense_s == math.inf
    assert figures(answer(11.0)).back_on_dense_s == math.inf


def test_the_timeline_has_a_row_for_every_second_from_the_first_request_on() -> None:
    rows = timeline(
        course(answer(8.2), answer(10.1, sparsity=0.5), answer(10.2, took_s=1.0, sparsity=0.5), refusal(10.3))
    )
    assert [row["second"] for row in rows] == list(range(-2, 20))
    at = {row["second"]: row for row in rows}
    assert (at[0]["due"], at[0]["refused"], at[0]["sparsity"]) == (3, 1, 0.5)
    assert at[0]["p99_s"] == pytest.approx(1.0, rel=0.05)
    assert (at[1]["due"], at[1]["p99_s"], at[1]["sparsity"]) == (0, None, 0.5)
    assert at[5]["sparsity"] is None
