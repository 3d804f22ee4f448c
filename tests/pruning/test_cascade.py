import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pruning.cascade import lowest_threshold, margins, unsure

LOGITS = arrays(np.float32, st.tuples(st.integers(1, 20), st.integers(2, 4)), elements=st.floats(-9, 9, width=32))


def test_a_margin_is_the_best_score_less_the_second() -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [1 / 3, 1 / 3, 1 / 3]])
    assert margins(np.log(scores)) == pytest.approx([0.5, 0.25, 0.0])


@given(LOGITS)
def test_margins_lie_between_none_and_one(logits_NC: np.ndarray) -> None:
    assert ((margins(logits_NC) >= 0.0) & (margins(logits_NC) <= 1.0)).all()
    assert not unsure(logits_NC, 0.0).any()


@st.composite
def judged(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, float]:
    count = draw(st.integers(1, 40))
    margin = arrays(np.float64, count, elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]))
    return draw(margin), draw(arrays(np.bool_, count)), draw(st.sampled_from([0.5, 0.9, 0.98, 1.0]))


@given(judged())
def test_the_threshold_reaches_its_agreement_and_no_lower_one_does(case: tuple[np.ndarray, np.ndarray, float]) -> None:
    margins_N, agrees_N, target = case

    def agreement(threshold: float) -> float:
        return float(np.mean(agrees_N | (margins_N < threshold)))

    threshold = lowest_threshold(margins_N, agrees_N, target)
    assert agreement(threshold) >= target - 1e-9
    if threshold > 0.0:
        assert agreement(float(np.nextafter(threshold, 0.0))) < target
