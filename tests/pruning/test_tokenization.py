import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from pruning.errors import ModelError
from pruning.tokenization import Direction, Text, TextTokenizer

TEXTS: list[Text] = [
    "the film was good",
    "The FILM, was not very gooDs!",
    "unbelievable é 😀 food",
    ("we liked the food", "it was dull"),
    "good " * 100,
    ("good " * 100, "bad"),
    ("bad", "good " * 100),
    ("good " * 100, "bad " * 100),
]

words = st.lists(st.sampled_from(["a", "the", "film", "goods", "badly", ",", "é"]), min_size=1, max_size=20).map(
    " ".join
)


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir: Path) -> TextTokenizer:
    return TextTokenizer.load(tiny_model_dir)


@pytest.fixture(scope="module")
def library(tiny_model_dir: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_model_dir / "tokenizer.json"))


@pytest.mark.parametrize("direction", Direction)
def test_ids_and_types_are_those_of_transformers(tiny_model_dir: Path, direction: Direction) -> None:
    reference = PreTrainedTokenizerFast(
        tokenizer_file=str(tiny_model_dir / "tokenizer.json"), truncation_side=direction.value
    )
    encoded = TextTokenizer.load(tiny_model_dir).encode(TEXTS, max_length=48, direction=direction)
    for text, ours in zip(TEXTS, encoded, strict=True):
        pair = (text,) if isinstance(text, str) else text
        theirs = reference(*pair, truncation=True, max_length=48, return_token_type_ids=True)
        assert (ours.ids, ours.type_ids) == (theirs["input_ids"], theirs["token_type_ids"])


@given(
    text=words | st.tuples(words, words),
    max_length=st.integers(min_value=5, max_value=24),
    direction=st.sampled_from(Direction),
)
def test_a_cut_is_the_cut_of_the_library(
    tokenizer: TextTokenizer, library: Tokenizer, text: Text, max_length: int, direction: Direction
) -> None:
    library.enable_truncation(max_length, strategy="longest_first", direction=direction.value)
    theirs = library.encode(text) if isinstance(text, str) else library.encode(*text)
    (ours,) = tokenizer.encode([text], max_length=max_length, direction=direction)
    assert (ours.ids, ours.type_ids) == (theirs.ids, theirs.type_ids)
    assert ours.truncated == bool(theirs.overflowing)


def test_one_text_and_many_give_the_same_tokens(tokenizer: TextTokenizer) -> None:
    together = tokenizer.encode(TEXTS, max_length=48)
    assert together == [tokenizer.encode([text], max_length=48)[0] for text in TEXTS]


def test_without_truncation_a_long_text_stays_whole(tokenizer: TextTokenizer) -> None:
    (encoded,) = tokenizer.encode(["good " * 100], max_length=48, truncate=False)
    assert len(encoded.ids) == 102
    assert not encoded.truncated


def test_truncation_and_padding_stored_in_the_file_are_switched_off(tiny_model_dir: Path, tmp_path: Path) -> None:
    stored = Tokenizer.from_file(str(tiny_model_dir / "tokenizer.json"))
    stored.enable_truncation(4)
    stored.enable_padding(length=32)
    stored.save(str(tmp_path / "tokenizer.json"))
    (encoded,) = TextTokenizer.load(tmp_path).encode(["the film was good"], max_length=48)
    assert len(encoded.ids) == 6


def test_threads_with_different_limits_do_not_disturb_each_other(tokenizer: TextTokenizer) -> None:
    wrong: list[int] = []

    def encode(max_length: int) -> None:
        for _ in range(50):
            (encoded,) = tokenizer.encode(["good " * 60], max_length=max_length)
            if len(encoded.ids) != max_length:
                wrong.append(len(encoded.ids))

    threads = [threading.Thread(target=encode, args=(length,)) for length in (8, 16, 32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '{"model": 3}'])
def test_a_directory_without_a_usable_tokenizer_is_refused_by_name(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        TextTokenizer.load(tmp_path)
