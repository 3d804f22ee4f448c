"""Metrics against published values, hand counts and laws."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pruning.metrics import (
    Reals,
    bootstrap_interval,
    entities,
    f1,
    fisher_interval,
    matthews,
    pearson,
    spearman,
    wilson_interval,
)

numbers = st.lists(st.integers(-50, 50), min_size=4, max_size=30)


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_wilson_interval_has_the_published_values(successes: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(successes, total) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(total=st.integers(1, 10_000), share=st.floats(0, 1))
def test_the_interval_holds_the_share_and_stays_within_zero_and_one(total: int, share: float) -> None:
    successes = round(share * total)
    low, high = wilson_interval(successes, total)
    assert 0 <= low <= successes / total + 1e-12
    assert successes / total - 1e-12 <= high <= 1


@given(total=st.integers(1, 1_000), share=st.floats(0, 1))
def test_failures_have_the_mirrored_interval(total: int, share: float) -> None:
    successes = round(share * total)
    low, high = wilson_interval(successes, total)
    mirrored_low, mirrored_high = wilson_interval(total - successes, total)
    assert mirrored_low == pytest.approx(1 - high, abs=1e-12)
    assert mirrored_high == pytest.approx(1 - low, abs=1e-12)


def test_no_trials_say_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_fishers_interval_has_the_published_values() -> None:
    # r = 0.5 of 28 pairs: atanh(0.5) = 0.5493, plus and minus 1.96 / 5.
    assert fisher_interval(0.5, 28) == (pytest.approx(0.1560, abs=1e-4), pytest.approx(0.7358, abs=1e-4))


@pytest.mark.parametrize("total", [0, 3])
def test_too_few_pairs_say_nothing_of_a_correlation(total: int) -> None:
    assert fisher_interval(0.9, total) == (-1.0, 1.0)


@pytest.mark.parametrize("correlation", [-1.0, 1.0])
def test_a_perfect_correlation_is_its_own_interval(correlation: float) -> None:
    assert fisher_interval(correlation, 30) == (correlation, correlation)


def reals(values: Sequence[float]) -> Reals:
    return np.array(values, dtype=np.float64)


@given(ours=numbers, data=st.data())
def test_pearson_is_numpys(ours: list[int], data: st.DataObject) -> None:
    theirs = data.draw(st.lists(st.integers(-50, 50), min_size=len(ours), max_size=len(ours)))
    assume(len(set(ours)) > 1 and len(set(theirs)) > 1)
    assert pearson(reals(ours), reals(theirs)) == pytest.approx(np.corrcoef(ours, theirs)[0, 1], abs=1e-9)


def test_a_constant_correlates_with_nothing() -> None:
    assert pearson(reals([2, 2, 2]), reals([1, 2, 3])) == 0.0


def test_spearman_is_one_where_the_order_is_the_same_and_equal_values_share_their_rank() -> None:
    assert spearman(reals([1, 10, 100, 1000]), reals([0.1, 0.2, 0.3, 0.31])) == pytest.approx(1.0)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert spearman(reals([5, 7, 7, 9]), reals([1, 2, 3, 4])) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_the_matthews_correlation_of_two_labels_is_the_known_formula() -> None:
    true, predicted = np.array([1] * 6 + [0] * 4), np.array([1, 1, 1, 1, 0, 0, 1, 0, 0, 0])
    tp, fn, fp, tn = 4, 2, 1, 3
    expected = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert matthews(predicted, true, 2) == pytest.approx(expected)


@pytest.mark.parametrize("labels", [2, 3])
def test_who_is_always_right_has_a_matthews_correlation_of_one_and_who_never_tells_apart_of_none(labels: int) -> None:
    true = np.arange(12) % labels
    assert matthews(true, true, labels) == pytest.approx(1.0)
    assert matthews(np.zeros(12, dtype=np.int64), true, labels) == 0.0


def test_f1_is_the_harmonic_mean_and_one_where_nothing_was_to_be_found() -> None:
    assert f1(reals([2, 0]), reals([3, 0]), reals([4, 0])).tolist() == [pytest.approx(4 / 7), 1.0]


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O O", set()),
        ("B-PER I-PER O B-LOC", {("PER", 0, 2), ("LOC", 3, 4)}),
        ("B-PER B-PER", {("PER", 0, 1), ("PER", 1, 2)}),
        ("I-PER I-PER O I-PER", {("PER", 0, 2), ("PER", 3, 4)}),
        ("B-PER I-LOC", {("PER", 0, 1), ("LOC", 1, 2)}),
        ("B-PER O I-PER", {("PER", 0, 1), ("PER", 2, 3)}),
    ],
)
def test_entities_are_read_as_conlleval_reads_them(tags: str, found: set[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == found


def mean_of(sums_BK: Reals) -> Reals:
    means: Reals = sums_BK[:, 0] / sums_BK[:, 1]
    return means


def test_the_bootstrap_interval_of_a_proportion_is_near_wilsons() -> None:
    counts = np.array([[float(index < 70), 1.0] for index in range(100)])
    assert bootstrap_interval(counts, mean_of) == pytest.approx(wilson_interval(70, 100), abs=0.03)


@given(seed=st.integers(0, 100))
def test_the_same_rows_and_seed_have_the_same_bootstrap_interval(seed: int) -> None:
    counts = np.array([[float(index % 3 == 0), 1.0] for index in range(20)])
    low, high = bootstrap_interval(counts, mean_of, seed=seed)
    assert (low, high) == bootstrap_interval(counts, mean_of, seed=seed)
    assert low <= 7 / 20 <= high
