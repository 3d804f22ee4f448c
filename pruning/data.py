"""Labelled rows from files -> encoded, hashed sets.

A row has ``text`` (or ``sentence``), an optional ``text_pair``, and ``label``: a label's name or its number.
"""

import csv
import hashlib
import json
import random
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from torch import Tensor

from pruning.errors import DataError
from pruning.tokenization import Encoded, TextTokenizer

TEXT_FIELDS = ("text", "sentence")
FORMATS = (".jsonl", ".csv", ".tsv", ".parquet")
MAX_DIGITS = 20
"""A label's number is not longer; Python refuses to read those of thousands of digits."""
MAX_TOKENS = 128
"""Longest labelled sequence used for scoring and evaluation; longer ones are cut."""


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One text, or pair of texts, and the index of its label."""

    text: str
    text_pair: str | None
    label: int


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Encoded rows in a fixed order."""

    sequences: tuple[Encoded, ...]
    labels: Tensor
    """Label indices, [n]."""
    digest: str
    """Of token ids, token types, labels and their order."""

    def __len__(self) -> int:
        """Return n."""
        return len(self.sequences)

    def subset(self, indices: Sequence[int]) -> "LabelledSet":
        """Return the rows at ``indices``, in that order."""
        return _labelled_set([self.sequences[i] for i in indices], [int(self.labels[i]) for i in indices])


def read_rows(path: Path, labels: Sequence[str]) -> list[LabelledRow]:
    """Return the labelled rows of a JSON Lines, CSV, TSV or Parquet file.

    Args:
        path: the file; its suffix says the format.
        labels: the model's labels, in logit order. A row gives a name of these or an index into them.

    Raises:
        DataError: no such file, an unknown format, no rows, or a row that cannot be used (its line is named).
    """
    if path.suffix not in FORMATS:
        raise DataError(f"{path}: unknown format {path.suffix!r}; give one of {', '.join(FORMATS)}")
    try:
        rows = [_checked(values, f"{path}, line {line}", labels) for line, values in _records(path)]
    except FileNotFoundError:
        raise DataError(f"no file of labelled rows at {path}; give the path of one") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}; save it as UTF-8") from None
    except (OSError, csv.Error, pyarrow.ArrowInvalid) as error:
        raise DataError(
            f"{path} cannot be read as {path.suffix}: {error}; save it again in the format of its name"
        ) from None
    if not rows:
        raise DataError(f"{path} holds no rows; give at least one labelled text")
    return rows


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (line number in the file, fields)."""
    if path.suffix == ".parquet":
        yield from enumerate(pyarrow.parquet.read_table(path).to_pylist(), start=1)
        return
    with path.open(encoding="utf-8-sig", newline="") as stream:
        if path.suffix == ".jsonl":
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, _json_object(line, f"{path}, line {number}")
            return
        reader = csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        for fields in reader:
            yield reader.line_num, fields


def _json_object(line: str, where: str) -> Mapping[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:  # also numbers too long to read, and nesting too deep
        raise DataError(f"{where}: not JSON that can be read ({error}); give one object per line") from None
    if not isinstance(values, dict):
        raise DataError(f"{where}: a row must be an object with text and label, not {type(values).__name__}")
    return values


def _checked(values: Mapping[str, Any], where: str, labels: Sequence[str]) -> LabelledRow:
    text = next((values[field] for field in TEXT_FIELDS if values.get(field) is not None), None)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: no text; each row needs a non-empty 'text' and a 'label'")
    pair = values.get("text_pair") or None
    if pair is not None and not isinstance(pair, str):
        raise DataError(f"{where}: 'text_pair' must be a string, got {reprlib.repr(pair)}")
    if not _is_text(text) or not _is_text(pair or ""):
        raise DataError(f"{where}: half a surrogate pair is no character; write the text as UTF-8")
    if values.get("label") is None or values["label"] == "":
        raise DataError(f"{where}: no label; each row needs a non-empty 'text' and a 'label'")
    return LabelledRow(text, pair, _label_index(values["label"], where, labels))


def _is_text(text: str) -> bool:
    """Tell whether UTF-8 can hold the text; a JSON escape can make one that it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _label_index(label: Any, where: str, labels: Sequence[str]) -> int:
    if isinstance(label, str) and label in labels:
        return labels.index(label)
    written = isinstance(label, str) and label.isascii() and label.isdigit() and len(label) <= MAX_DIGITS
    number = int(label) if written else label
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(labels):
        return number
    raise DataError(
        f"{where}: the model does not know the label {reprlib.repr(label)}; it knows {', '.join(map(repr, labels))} "
        f"or their numbers 0 to {len(labels) - 1}"
    )


def encode_rows(rows: Sequence[LabelledRow], tokenizer: TextTokenizer, max_length: int = MAX_TOKENS) -> LabelledSet:
    """Return the rows as token ids, cut at ``max_length``, in their order."""
    texts = [row.text if row.text_pair is None else (row.text, row.text_pair) for row in rows]
    return _labelled_set(tokenizer.encode(texts, max_length=max_length), [row.label for row in rows])


def calibration_sample(rows: LabelledSet, size: int, seed: int) -> LabelledSet:
    """Return at most ``size`` rows drawn without replacement, shortest first.

    The same rows, size and seed always give the same set in the same order, hence the same digest.
    """
    chosen = random.Random(seed).sample(range(len(rows)), min(size, len(rows)))
    return rows.subset(sorted(chosen, key=lambda index: (len(rows.sequences[index].ids), index)))


def _labelled_set(sequences: Sequence[Encoded], labels: Sequence[int]) -> LabelledSet:
    digest = hashlib.sha256()
    for sequence, label in zip(sequences, labels, strict=True):
        digest.update(json.dumps([list(sequence.ids), list(sequence.type_ids), label]).encode())
    return LabelledSet(tuple(sequences), torch.tensor(labels), digest.hexdigest())
