import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.sequential_test import evidence_below, is_below

FLOOR, ERROR_RATE = 0.9, 0.05


def texts_until_said(agreement: float, texts: int, seed: int, floor: float = FLOOR) -> int | None:
    """How many texts it took to say that the share is below the floor, looked at after every one."""
    draw, agreed = random.Random(seed), 0
    for number in range(1, texts + 1):
        agreed += draw.random() < agreement
        if is_below(number, agreed, floor, ERROR_RATE):
            return number
    return None


def test_a_share_at_the_floor_is_said_to_be_below_it_no_more_often_than_the_error_rate() -> None:
    alarms = sum(texts_until_said(FLOOR, 400, seed) is not None for seed in range(200))
    # Of 200 runs with a chance of 5 % each, more than 20 alarms come with a probability of 0.1 %.
    assert alarms <= 20


@pytest.mark.parametrize(("agreement", "most"), [(0.5, 40), (0.75, 150), (0.85, 1200)])
def test_a_share_below_the_floor_is_found_the_sooner_the_lower_it_lies(agreement: float, most: int) -> None:
    found = [texts_until_said(agreement, 1200, seed) for seed in range(40)]
    assert sorted(9999 if one is None else one for one in found)[36] <= most


@given(st.integers(1, 500), st.floats(0.01, 0.99), st.data())
def test_more_agreement_is_less_evidence(texts: int, floor: float, data: st.DataObject) -> None:
    agreed = data.draw(st.integers(1, texts))
    assert evidence_below(texts, agreed - 1, floor) > evidence_below(texts, agreed, floor)


@given(st.integers(1, 12), st.floats(0.05, 0.95))
def test_the_mean_ratio_at_the_floor_is_one(texts: int, floor: float) -> None:
    mean = sum(
        math.comb(texts, agreed)
        * floor**agreed
        * (1 - floor) ** (texts - agreed)
        * math.exp(evidence_below(texts, agreed, floor))
        for agreed in range(texts + 1)
    )
    assert mean == pytest.approx(1.0)


def test_the_ends_of_the_floor() -> None:
    assert not is_below(1000, 0, 0.0, ERROR_RATE)
    assert not is_below(1000, 1000, 1.0, ERROR_RATE)
    assert is_below(1000, 999, 1.0, ERROR_RATE)
    assert not is_below(0, 0, FLOOR, ERROR_RATE)
