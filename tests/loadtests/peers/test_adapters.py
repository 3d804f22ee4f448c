import json
from typing import Any

import pytest

from loadtests.peers.adapters import INFINITY, SPARSEDIAL, TEXTS, Adapter, AnswerError

GOOD = {"label": "good", "score": 0.9}
BAD = {"label": "bad", "score": 0.1}
POOR = {"label": "bad", "score": 0.8}


@pytest.mark.parametrize(
    ("adapter", "texts", "body"),
    [
        (SPARSEDIAL, ["a"], {"inputs": "a"}),
        (SPARSEDIAL, ["a", "b"], {"inputs": [["a"], ["b"]]}),
        (TEXTS, ["a"], {"texts": ["a"]}),
        (TEXTS, ["a", "b"], {"texts": ["a", "b"]}),
        (INFINITY, ["a", "b"], {"model": "checkpoint", "input": ["a", "b"]}),
    ],
)
def test_a_body_asks_in_the_servers_own_words(adapter: Adapter, texts: list[str], body: object) -> None:
    assert json.loads(adapter.body(texts)) == body


@pytest.mark.parametrize(
    ("adapter", "answer", "labels"),
    [
        (SPARSEDIAL, [GOOD, BAD], ["good"]),
        (SPARSEDIAL, [[GOOD, BAD], [POOR]], ["good", "bad"]),
        (SPARSEDIAL, [[BAD, GOOD]], ["good"]),
        (TEXTS, [GOOD, POOR], ["good", "bad"]),
        (INFINITY, {"data": [[BAD, GOOD], [POOR]]}, ["good", "bad"]),
    ],
)
def test_the_best_label_of_each_text_is_read(adapter: Adapter, answer: Any, labels: list[str]) -> None:
    assert adapter.labels(json.dumps(answer).encode(), len(labels)) == labels


@pytest.mark.parametrize("adapter", [SPARSEDIAL, TEXTS, INFINITY])
@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b"[1]", b"3", b'{"data": []}', b'[{"score": 1}]'])
def test_an_answer_without_the_labels_is_refused(adapter: Adapter, answer: bytes) -> None:
    with pytest.raises(AnswerError):
        adapter.labels(answer, 1)


def test_one_label_for_two_texts_is_refused() -> None:
    with pytest.raises(AnswerError, match="1 labels for 2 texts"):
        TEXTS.labels(json.dumps([GOOD]).encode(), 2)
