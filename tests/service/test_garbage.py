"""What lives long is not looked through again and again."""

import gc
from collections.abc import Iterator

import pytest

from service.garbage import collect_seldom


@pytest.fixture(autouse=True)
def usual_thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def rounds_while_requests_gather() -> int:
    """Return how often Python looked for garbage while a thousand requests' worth of objects came to live."""
    before = sum(generation["collections"] for generation in gc.get_stats())
    alive = [[{"token": [number]}] for number in range(20_000)]
    del alive
    return sum(generation["collections"] for generation in gc.get_stats()) - before


def test_requests_that_gather_are_not_looked_through() -> None:
    assert rounds_while_requests_gather() > 10
    collect_seldom()
    assert rounds_while_requests_gather() <= 1


def test_what_forms_a_cycle_goes_in_the_end() -> None:
    collect_seldom()
    before = gc.get_stats()[0]["collected"]
    for _ in range(150_000):
        cycle: list[object] = []
        cycle.append(cycle)
    assert gc.get_stats()[0]["collected"] - before > 50_000
