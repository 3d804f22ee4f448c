from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pruning.pareto import dominators, left_out


def row(
    variant: str, accuracy: float, items_per_s: float, run: str | None = "run", rows: str = "rows"
) -> dict[str, Any]:
    return {
        "variant": variant,
        "metric_value": accuracy,
        "items_per_s": items_per_s,
        "speeds_run": run,
        "rows_digest": rows,
    }


def test_what_is_less_accurate_and_slower_than_another_is_dominated_by_it() -> None:
    rows = [row("dense", 0.9, 100), row("0.4", 0.82, 150), row("0.6", 0.83, 200)]
    assert dominators(rows) == {"dense": None, "0.4": "0.6", "0.6": None}


@pytest.mark.parametrize("worse", [row("worse", 0.8, 200), row("worse", 0.83, 100)], ids=["accuracy", "speed"])
def test_it_is_enough_to_be_worse_in_one_and_equal_in_the_other(worse: dict[str, Any]) -> None:
    assert dominators([worse, row("better", 0.83, 200)])["worse"] == "better"


def test_of_equals_the_first_is_kept() -> None:
    rows = [row("first", 0.8, 100), row("second", 0.8, 100), row("third", 0.8, 100)]
    assert dominators(rows) == {"first": None, "second": "first", "third": "first"}


@pytest.mark.parametrize(
    "better",
    [
        row("better", 0.9, 200, run="other run"),
        row("better", 0.9, 200, rows="other rows"),
        row("better", 0.9, 200, run=None),
    ],
    ids=["another run", "other rows", "no run"],
)
def test_only_what_was_timed_and_judged_together_is_compared(better: dict[str, Any]) -> None:
    assert dominators([row("one", 0.8, 100), better]) == {"one": None, "better": None}


def test_two_that_no_run_timed_are_not_compared() -> None:
    rows = [row("one", 0.8, 100, run=None), row("better", 0.9, 200, run=None)]
    assert dominators(rows) == {"one": None, "better": None}


POINTS = some.lists(some.tuples(some.integers(0, 5), some.integers(0, 5)), min_size=1, max_size=12)


@given(POINTS)
def test_something_is_always_worth_having_and_whoever_dominates_is(points: list[tuple[int, int]]) -> None:
    found = dominators([row(str(index), accuracy, rate) for index, (accuracy, rate) in enumerate(points)])
    worthy = {variant for variant, other in found.items() if other is None}
    assert worthy
    assert {other for other in found.values() if other is not None} <= worthy
    best = max(points), max(points, key=lambda point: (point[1], point[0]))
    assert {points[int(variant)] for variant in worthy} >= set(best)


def test_what_is_left_out_is_told_with_what_makes_it_so() -> None:
    worse, better = (
        row("worse", 0.8, 100) | {"dominated_by": "better"},
        row("better", 0.9, 200) | {"dominated_by": None},
    )
    assert left_out([worse, better]) == [(worse, better)]
