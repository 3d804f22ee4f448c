import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.histogram import RELATIVE_ERROR, LatencyHistogram

durations = st.lists(st.floats(min_value=1e-6, max_value=1e3), min_size=1, max_size=300)


def exact_quantile(values: list[float], q: float) -> float:
    return sorted(values)[max(1, math.ceil(q * len(values))) - 1]


@given(durations, st.floats(min_value=0, max_value=1))
def test_a_quantile_is_within_the_stated_error_of_the_exact_one(values: list[float], q: float) -> None:
    found = LatencyHistogram(values).quantile(q)
    assert found == pytest.approx(exact_quantile(values, q), rel=RELATIVE_ERROR + 1e-9)


@given(durations, durations)
def test_merging_equals_counting_together(left: list[float], right: list[float]) -> None:
    merged = LatencyHistogram(left).merged(LatencyHistogram(right))
    together = LatencyHistogram(left + right)
    assert len(merged) == len(together)
    assert merged.max_s == together.max_s
    assert merged.mean_s == pytest.approx(together.mean_s)
    assert [merged.quantile(q / 20) for q in range(21)] == [together.quantile(q / 20) for q in range(21)]


def test_percentiles_of_a_lognormal_sample_are_within_the_stated_error() -> None:
    draw = random.Random(5)
    values = [draw.lognormvariate(-5, 1) for _ in range(20_000)]
    histogram = LatencyHistogram(values)
    for q in (0.5, 0.9, 0.99, 0.999):
        assert histogram.quantile(q) == pytest.approx(exact_quantile(values, q), rel=RELATIVE_ERROR)


def test_an_empty_histogram_has_no_quantile() -> None:
    empty = LatencyHistogram()
    assert len(empty) == 0
    assert math.isnan(empty.quantile(0.5)) and math.isnan(empty.max_s) and math.isnan(empty.mean_s)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_a_duration_that_cannot_be_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        LatencyHistogram([value])


def test_a_share_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match="lies in"):
        LatencyHistogram([1.0]).quantile(99)
