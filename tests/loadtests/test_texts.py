from pathlib import Path

import pytest

from loadtests.errors import LoadTestError
from loadtests.texts import load_texts, request_bodies


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
