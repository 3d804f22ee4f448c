import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.data import LabelledSet, calibration_sample, rows_apart
from pruning.encoder import BaseModel
from pruning.errors import DataError
from pruning.tasks.labels import LabelledRow, encode_rows, read_rows
from pruning.tokenization import TextTokenizer

LABELS = ("negative", "positive")
ROWS: list[dict[str, Any]] = [
    {"text": "the film, was good", "text_pair": None, "label": "positive"},
    {"text": 'we "hated" it\nand it was dull', "text_pair": None, "label": "negative"},
    {"text": "the food\twas fine", "text_pair": "it was cold", "label": "negative"},
    {"text": "é 😀", "text_pair": None, "label": "positive"},
]


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)


WRITERS: dict[str, Callable[[Path, Sequence[dict[str, Any]]], None]] = {
    ".jsonl": write_jsonl,
    ".csv": write_table,
    ".tsv": write_table,
    ".parquet": write_parquet,
}


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir: Path) -> TextTokenizer:
    return TextTokenizer.load(tiny_model_dir)


def set_of(tokenizer: TextTokenizer, *rows: LabelledRow) -> LabelledSet:
    return encode_rows(rows, tokenizer)


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](path, ROWS)
    assert read_rows(path, LABELS) == [
        LabelledRow(row["text"], row["text_pair"], LABELS.index(row["label"])) for row in ROWS
    ]


def test_a_message_names_rows_as_they_stand_in_their_file(train: LabelledSet) -> None:
    whole = replace(train, numbers=())
    chosen = whole.subset([7, 3, 30]).subset([2, 1])
    assert chosen.numbers == (31, 4)
    assert whole.named([0]) == "training row 1, counted from 1,"
    assert chosen.named([1, 0]) == "training rows 4, 31, counted from 1,"
    assert whole.named(range(40)) == "training rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ..., counted from 1,"
    assert chosen.digest == replace(chosen, numbers=()).subset([0, 1]).digest


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_label_is_its_name_or_its_number(tmp_path: Path, suffix: str) -> None:
    by_name, by_number = tmp_path / f"names{suffix}", tmp_path / f"numbers{suffix}"
    WRITERS[suffix](by_name, ROWS)
    WRITERS[suffix](by_number, [row | {"label": LABELS.index(row["label"])} for row in ROWS])
    assert read_rows(by_number, LABELS) == read_rows(by_name, LABELS)


def test_sentence_is_another_name_of_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"sentence": "good", "label": 1}])
    assert read_rows(path, LABELS) == [LabelledRow("good", None, 1)]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("not json", "not JSON"),
        ('["good", 1]', "must be an object"),
        ('{"label": 1}', "no text"),
        ('{"text": "   ", "label": 1}', "no text"),
        ('{"text": 3, "label": 1}', "no text"),
        ('{"text": "good"}', "no label"),
        ('{"text": "good", "label": ""}', "no label"),
        ('{"text": "good", "label": null}', "no label"),
        ('{"text": "good", "label": "great"}', "does not know the label 'great'; it knows 'negative', 'positive'"),
        ('{"text": "good", "label": 2}', "does not know the label 2"),
        ('{"text": "good", "label": -1}', "does not know the label -1"),
        ('{"text": "good", "label": true}', "does not know the label True"),
        ('{"text": "good", "label": 1.5}', "does not know the label 1.5"),
        ('{"text": "good", "text_pair": 7, "label": 1}', "'text_pair' must be a string"),
        ('{"text": "good", "label": ' + "1" * 5_000 + "}", "not JSON that can be read .*; give one object per line"),
        ('{"text": "good", "label": "' + "1" * 5_000 + '"}', "does not know the label '1111"),
        ('{"text": "good", "label": ' + "[" * 100_000 + "]" * 100_000 + "}", "not JSON that can be read"),
        ('{"text": "good", "label": ' + "[" * 900 + "]" * 900 + "}", r"does not know the label \[\["),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_naming_its_line(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine", "label": 1}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"rows.jsonl, line 3: .*{complaint}"):
        read_rows(path, LABELS)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_table_row_that_cannot_be_used_is_refused_naming_its_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    write_table(path, [{"text": "fine", "label": "positive"}, {"text": "good", "label": "great"}])
    with pytest.raises(DataError, match=f"rows{suffix}, line 3: .*'great'"):
        read_rows(path, LABELS)


def test_a_table_without_the_columns_is_refused_naming_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("review,stars\nfine,1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2: .*'text' and a 'label'"):
        read_rows(path, LABELS)


@pytest.mark.parametrize(
    ("name", "content"),
    [("rows.jsonl", ""), ("rows.jsonl", "\n  \n"), ("rows.csv", ""), ("rows.tsv", "text\tlabel\n")],
)
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=f"{name} holds no rows"):
        read_rows(path, LABELS)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes('text,label\n{"text": "caf\xe9", "label": 1}\n'.encode("latin-1"))
    if suffix == ".jsonl":
        path.write_bytes('{"text": "caf\xe9", "label": 1}\n'.encode("latin-1"))
    with pytest.raises(DataError, match=f"rows{suffix} is not UTF-8"):
        read_rows(path, LABELS)


@pytest.mark.parametrize("content", [b"", b"PAR1 this is no parquet"])
def test_a_broken_parquet_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"rows\.parquet cannot be read"):
        read_rows(path, LABELS)


def test_an_unclosed_quote_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n"good,1\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"rows\.csv cannot be read"):
        read_rows(path, LABELS)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_missing_file_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(DataError, match=f"no file of labelled rows at .*absent{suffix}"):
        read_rows(tmp_path / f"absent{suffix}", LABELS)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_folder_in_place_of_a_file_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"rows{suffix}").mkdir()
    with pytest.raises(DataError, match=f"rows{suffix}"):
        read_rows(tmp_path / f"rows{suffix}", LABELS)


def test_an_unknown_format_is_refused_naming_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"unknown format '\.txt'; give one of \.jsonl, \.jsonl\.gz, \.csv, \.tsv, \.parquet"
    ):
        read_rows(tmp_path / "rows.txt", LABELS)


def test_half_a_surrogate_pair_is_refused_naming_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "good \\ud83d", "label": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 1"):
        read_rows(path, LABELS)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_a_byte_order_mark_is_not_part_of_the_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](path, ROWS)
    plain = read_rows(path, LABELS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_rows(path, LABELS) == plain


def test_encoded_rows_keep_their_order_and_labels(tokenizer: TextTokenizer) -> None:
    rows = [LabelledRow("good film", None, 1), LabelledRow("dull", None, 0), LabelledRow("the food", "it was warm", 1)]
    encoded = encode_rows(rows, tokenizer)
    assert encoded.labels.tolist() == [1, 0, 1]
    assert list(encoded.sequences) == tokenizer.encode(
        ["good film", "dull", ("the food", "it was warm")], max_length=48
    )


def test_encoded_rows_are_cut_at_the_length_given(tokenizer: TextTokenizer) -> None:
    (sequence,) = encode_rows([LabelledRow("good " * 40, None, 1)], tokenizer, max_length=10).sequences
    assert len(sequence.ids) == 10


def test_the_digest_tells_apart_text_pair_label_and_order(tokenizer: TextTokenizer) -> None:
    good, dull = LabelledRow("good", None, 1), LabelledRow("dull", None, 0)
    sets = [
        set_of(tokenizer, good, dull),
        set_of(tokenizer, dull, good),
        set_of(tokenizer, good, LabelledRow("dull", None, 1)),
        set_of(tokenizer, good, LabelledRow("dull film", None, 0)),
        set_of(tokenizer, good, LabelledRow("dull", "film", 0)),
        set_of(tokenizer, good),
    ]
    assert len({labelled.digest for labelled in sets}) == len(sets)


def test_a_subset_has_the_rows_asked_for_in_that_order(tokenizer: TextTokenizer) -> None:
    rows = [LabelledRow(text, None, label) for text, label in (("good", 1), ("bad", 0), ("fine food", 1))]
    subset = encode_rows(rows, tokenizer).subset([2, 0])
    assert subset.digest == set_of(tokenizer, rows[2], rows[0]).digest
    assert subset.labels.tolist() == [1, 1]


@given(size=st.integers(min_value=1, max_value=60), seed=st.integers(min_value=0, max_value=2**32))
def test_a_sample_is_a_part_of_the_rows_without_repeats_shortest_first(
    train: LabelledSet, size: int, seed: int
) -> None:
    numbered = LabelledSet(train.sequences, train.labels, train.digest)
    sample = calibration_sample(numbered, size, seed)
    places = [next(i for i, mine in enumerate(train.sequences) if mine is theirs) for theirs in sample.sequences]
    lengths = [len(sequence.ids) for sequence in sample.sequences]
    assert len(set(places)) == len(sample) == min(size, len(train))
    assert lengths == sorted(lengths)
    assert sample.labels.tolist() == train.labels[places].tolist()


@given(size=st.integers(1, 60), most=st.integers(0, 60), seed=st.integers(0, 2**32))
def test_rows_apart_are_none_of_the_sample(train: LabelledSet, size: int, most: int, seed: int) -> None:
    numbered = LabelledSet(train.sequences, train.labels, train.digest)
    drawn, apart = calibration_sample(numbered, size, seed), rows_apart(numbered, size, seed, most)
    assert not {id(one) for one in drawn.sequences} & {id(one) for one in apart.sequences}
    assert len(apart) == min(most, len(train) - len(drawn))
    assert apart.digest == rows_apart(numbered, size, seed, most).digest


def test_the_same_rows_size_and_seed_give_the_same_sample(train: LabelledSet) -> None:
    assert calibration_sample(train, 10, seed=3).digest == calibration_sample(train, 10, seed=3).digest


def test_another_seed_gives_another_sample(train: LabelledSet) -> None:
    assert calibration_sample(train, 10, seed=3).digest != calibration_sample(train, 10, seed=4).digest


def test_rows_read_for_a_model_know_its_labels(base: BaseModel, tiny_rows: tuple[Path, Path]) -> None:
    rows = read_rows(tiny_rows[0], base.labels)
    assert [row.label for row in rows] == [index % 2 for index in range(40)]
