"""The records of a file of rows, format by format, each with where it stands."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from pruning.errors import DataError

FORMATS = (".jsonl", ".jsonl.gz", ".csv", ".tsv", ".parquet")

Record = tuple[str, Mapping[str, Any]]
"""(file and line, for messages; fields)."""


def read_records(path: Path) -> list[Record]:
    """Return the records of a JSON Lines (also gzipped), CSV, TSV or Parquet file; its suffix says the format.

    Raises:
        DataError: no such file, an unknown format, no rows, or a line that is no record (it is named).
    """
    if not path.name.endswith(FORMATS):
        raise DataError(f"{path}: unknown format {path.suffix!r}; give one of {', '.join(FORMATS)}")
    try:
        records = [(f"{path}, line {line}", fields) for line, fields in _records(path)]
    except FileNotFoundError:
        raise DataError(f"no file of labelled rows at {path}; give the path of one") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}; save it as UTF-8") from None
    except (OSError, EOFError, zlib.error, csv.Error, pyarrow.ArrowInvalid) as error:
        raise DataError(
            f"{path} cannot be read as {path.suffix}: {error}; save it again in the format of its name"
        ) from None
    if not records:
        raise DataError(f"{path} holds no rows; give at least one labelled text")
    return records


def is_text(text: str) -> bool:
    """Tell whether UTF-8 can hold a text; a JSON escape can make one that it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (line number in the file, fields)."""
    if path.suffix == ".parquet":
        yield from enumerate(pyarrow.parquet.read_table(path).to_pylist(), start=1)
        return
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, mode="rt", encoding="utf-8-sig", newline="") as stream:
        if path.name.endswith((".jsonl", ".jsonl.gz")):
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
