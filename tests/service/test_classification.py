import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.classification import Activation, Ranking, rank

LABELS = ("negative", "neutral", "positive")

logits = st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), min_size=1, max_size=4)


@given(logits)
def test_softmax_scores_are_sorted_and_sum_to_one_for_any_logits(rows: list[list[float]]) -> None:
    for ranked, row in zip(rank(np.array(rows, np.float32), LABELS, Ranking()), rows, strict=True):
        scores = [float(entry["score"]) for entry in ranked]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1.0)
        assert ranked[0]["label"] == LABELS[int(np.argmax(np.array(row, np.float32)))]
        assert {entry["label"] for entry in ranked} == set(LABELS)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (Activation.NONE, [2.0, 0.0, -1.0]),
        (Activation.SIGMOID, [0.8807970779778823, 0.5, 0.2689414213699951]),
        (Activation.SOFTMAX, [0.8437947, 0.1141952, 0.0420101]),
    ],
)
def test_each_function_gives_its_scores(activation: Activation, expected: list[float]) -> None:
    (ranked,) = rank(np.array([[0.0, -1.0, 2.0]], np.float32), LABELS, Ranking(activation=activation))
    assert [entry["label"] for entry in ranked] == ["positive", "negative", "neutral"]
    assert [entry["score"] for entry in ranked] == pytest.approx(expected, abs=1e-6)


def test_a_model_with_one_label_answers_by_sigmoid() -> None:
    ((entry,),) = rank(np.array([[0.0]], np.float32), ("relevance",), Ranking())
    assert entry == {"label": "relevance", "score": 0.5}


@pytest.mark.parametrize(("top_k", "shown"), [(1, 1), (2, 2), (3, 3), (99, 3), (None, 3)])
def test_top_k_shows_the_best_labels(top_k: int | None, shown: int) -> None:
    (ranked,) = rank(np.array([[0.0, 1.0, 2.0]]), LABELS, Ranking(top_k=top_k))
    assert [entry["label"] for entry in ranked] == ["positive", "neutral", "negative"][:shown]


def test_equal_logits_keep_the_order_of_the_labels() -> None:
    (ranked,) = rank(np.zeros((1, 3)), LABELS, Ranking())
    assert [entry["label"] for entry in ranked] == list(LABELS)
