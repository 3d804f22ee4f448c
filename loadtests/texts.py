"""The texts that a load sends: sentences of our own, from one word to sixty, or the lines of a file."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from loadtests.errors import LoadTestError

SENTENCES = Path(__file__).with_name("sentences.txt")


def load_texts(path: Path | None) -> Sequence[str]:
    """Return the lines of ``path`` that are not blank; of our own sentences without a path.

    Of JSON Lines (``.jsonl``) they are the rows' ``text``.

    Raises:
        LoadTestError: the file cannot be read as UTF-8, has no text, or a row has none.
    """
    path = path or SENTENCES
    lines = _lines(path)
    if path.suffix == ".jsonl":
        return _members(path, lines, "text")
    return lines


def load_labels(path: Path | None) -> Sequence[str] | None:
    """Return the ``label`` of each row of a JSON Lines file; None for files that have no rows.

    Raises:
        LoadTestError: the file cannot be read, or a row has no label.
    """
    if path is None or path.suffix != ".jsonl":
        return None
    return _members(path, _lines(path), "label")


def labelled_texts(path: Path | None) -> list[tuple[str, str]]:
    """Return (text, label) of each row of a JSON Lines file.

    Raises:
        LoadTestError: it is no such file, it cannot be read, or a row lacks one of them.
    """
    labels = load_labels(path)
    if labels is None:
        raise LoadTestError("labelled texts are needed; give --texts FILE.jsonl, rows with text and label")
    return list(zip(load_texts(path), labels, strict=True))


def single_body(texts: Sequence[str]) -> bytes:
    """Return the encoded ``/predict`` body of one text."""
    (text,) = texts
    return json.dumps({"inputs": text}).encode()


def request_bodies(
    texts: Sequence[str],
    *,
    seed: int,
    size: int = 1,
    encode: Callable[[Sequence[str]], bytes] = single_body,
) -> list[bytes]:
    """Return encoded bodies of ``size`` texts each that hold every text, in an order drawn from ``seed``.

    The last body is filled up with texts from the beginning of the order.
    """
    order = list(texts)
    random.Random(seed).shuffle(order)
    starts = range(0, len(order), size)
    return [encode([order[(start + place) % len(order)] for place in range(size)]) for start in starts]


def _lines(path: Path) -> list[str]:
    """Return the lines that are not blank, one at least."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise LoadTestError(f"cannot read texts from {path}: {error}") from error
    texts = [line for line in lines if line]
    if not texts:
        raise LoadTestError(f"{path} has no text; give one per line")
    return texts


def _members(path: Path, lines: Sequence[str], member: str) -> list[str]:
    """Return one member of each line's JSON object, as words."""
    try:
        return [str(json.loads(line)[member]) for line in lines]
    except (ValueError, TypeError, LookupError) as error:
        raise LoadTestError(f"{path}: every line must be an object with {member!r}") from error
