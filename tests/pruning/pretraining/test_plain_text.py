import gzip
import json
from pathlib import Path

import pytest

from pruning.errors import DataError
from pruning.pretraining.plain_text import SHORTEST, load_plain_text
from pruning.tokenization import TextTokenizer

CLS, SEP = 2, 3
LONG = "the film was good and the food was warm but it was not very good"


@pytest.fixture
def tokenizer(tiny_model_dir: Path) -> TextTokenizer:
    return TextTokenizer.load(tiny_model_dir)


def write(path: Path, *texts: object) -> Path:
    lines = "".join(json.dumps({"id": index, "text": text}) + "\n" for index, text in enumerate(texts))
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    return path


@pytest.mark.parametrize("name", ["text.jsonl", "text.jsonl.gz"])
def test_pieces_are_the_texts_cut_where_a_sequence_is_full(tmp_path: Path, name: str, tokenizer: TextTokenizer) -> None:
    found = load_plain_text(write(tmp_path / name, LONG), tokenizer, 10, 99)
    (whole,) = tokenizer.encode([LONG], max_length=99)
    assert [len(piece.ids) for piece in found.sequences] == [10, 9]
    assert all((piece.ids[0], piece.ids[-1]) == (CLS, SEP) for piece in found.sequences)
    assert [token for piece in found.sequences for token in piece.ids[1:-1]] == whole.ids[1:-1]


def test_what_is_too_short_is_left_out(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    found = load_plain_text(write(tmp_path / "text.jsonl", "good", LONG), tokenizer, 99, 99)
    assert len(found) == 1 and len(found.sequences[0].ids) >= SHORTEST


def test_no_more_than_was_asked_for_is_read(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    path = write(tmp_path / "text.jsonl", LONG, LONG, None)
    assert len(load_plain_text(path, tokenizer, 10, 3)) == 3
    with pytest.raises(DataError, match=r"line 3: no text"):
        load_plain_text(path, tokenizer, 10, 99)


def test_the_digest_tells_texts_and_their_order_apart(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    texts = (LONG, LONG + " and dull")
    digests = {
        load_plain_text(write(tmp_path / "text.jsonl", *chosen), tokenizer, 20, 9).digest
        for chosen in (texts, texts[::-1], texts[:1])
    }
    assert len(digests) == 3


def test_text_of_which_nothing_is_long_enough_is_refused(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    with pytest.raises(DataError, match="no text of at least 8 tokens"):
        load_plain_text(write(tmp_path / "text.jsonl", "good"), tokenizer, 10, 9)


def test_a_damaged_archive_is_refused(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    path = write(tmp_path / "text.jsonl.gz", *[f"{LONG} {number}" for number in range(50)])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"text\.jsonl\.gz cannot be read"):
        load_plain_text(path, tokenizer, 10, 9)
