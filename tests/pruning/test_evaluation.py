import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.data import LabelledSet
from pruning.evaluation import evaluate, wilson_interval
from tests.pruning.parts import sequences_of


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


def rows_with(labels: list[int]) -> LabelledSet:
    return LabelledSet(tuple(sequences_of([3] * len(labels), vocabulary=30)), torch.tensor(labels), "digest")


def logits_for(predicted: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), 2).float()


@pytest.mark.parametrize("total", [1, 31, 33, 69])
def test_accuracy_is_correct_over_total(total: int) -> None:
    predicted = logits_for([1] * total)
    evaluation = evaluate(predicted, predicted, rows_with([1] * (total - 1) + [0]))
    assert evaluation.accuracy == (total - 1) / total
    assert evaluation.rows == total


def test_agreement_is_with_the_dense_model_and_not_with_the_labels() -> None:
    evaluation = evaluate(logits_for([0, 0, 1, 1]), logits_for([0, 1, 1, 1]), rows_with([1, 1, 0, 0]))
    assert (evaluation.accuracy, evaluation.agreement) == (0.0, 0.75)


def test_the_interval_of_the_accuracy_is_wilsons() -> None:
    evaluation = evaluate(logits_for([0] * 10), logits_for([0] * 10), rows_with([0] * 7 + [1] * 3))
    assert (evaluation.accuracy_low, evaluation.accuracy_high) == wilson_interval(7, 10)
