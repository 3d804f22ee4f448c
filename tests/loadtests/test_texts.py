import json
from pathlib import Path

import pytest

from loadtests.errors import LoadTestError
from loadtests.texts import load_labels, load_texts, request_bodies


def test_our_own_sentences_vary_in_length() -> None:
    lengths = [len(text.split()) for text in load_texts(None)]
    assert min(lengths) <= 2 and max(lengths) >= 40
    assert len(set(load_texts(None))) == len(lengths)


def test_a_file_gives_one_text_per_line(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("Grün und gut.\n\n  Two.  \n", encoding="utf-8")
    assert load_texts(tmp_path / "t.txt") == ["Grün und gut.", "Two."]


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xff\xfe"])
def test_a_file_without_texts_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(LoadTestError, match=r"t\.txt"):
        load_texts(tmp_path / "t.txt")


def test_bodies_follow_the_seed_and_lose_nothing() -> None:
    texts = ["one", "two", "three", "four", "five"]
    assert request_bodies(texts, seed=1) == request_bodies(texts, seed=1)
    assert sorted(request_bodies(texts, seed=1)) == sorted(request_bodies(texts, seed=2))
    assert request_bodies(["one"], seed=0) == [b'{"inputs": "one"}']


def test_rows_give_texts_and_labels(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "Fine.", "label": "good"}\n\n{"text": "Sad.", "label": 0}\n', encoding="utf-8")
    assert load_texts(rows) == ["Fine.", "Sad."]
    assert load_labels(rows) == ["good", "0"]
    assert load_labels(None) is None
    assert load_labels(tmp_path / "lines.txt") is None


@pytest.mark.parametrize("content", ["[]", "no json", '{"label": "good"}', "3"])
def test_a_row_without_a_text_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "rows.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(LoadTestError, match=r"rows\.jsonl"):
        load_texts(tmp_path / "rows.jsonl")


def test_larger_bodies_hold_every_text_and_are_all_of_one_size() -> None:
    bodies = request_bodies(["a", "b", "c"], seed=0, size=2, encode=lambda texts: json.dumps(texts).encode())
    groups = [json.loads(body) for body in bodies]
    assert [len(group) for group in groups] == [2, 2]
    assert {text for group in groups for text in group} == {"a", "b", "c"}


def test_a_body_may_hold_more_texts_than_there_are() -> None:
    assert request_bodies(["a"], seed=0, size=3, encode=lambda texts: "".join(texts).encode()) == [b"aaa"]
