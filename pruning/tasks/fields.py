"""What the fields of a row say it is for, and the texts that several tasks read."""

import reprlib
from collections.abc import Mapping
from typing import Any

from pruning.errors import DataError
from pruning.heads import Head
from pruning.records import is_text

FIELDS: dict[Head, tuple[str, ...]] = {
    Head.TAGS: ("tokens", "tags"),
    Head.SPAN: ("context", "question", "answers"),
    Head.SCORE: ("text", "score"),
    Head.LABEL: ("text", "label"),
}
"""What a row of each kind has."""
TEXT_FIELDS = ("text", "sentence")


def require_kind(values: Mapping[str, Any], where: str, head: Head) -> None:
    """Refuse a row that is of another kind than the model's head.

    Raises:
        DataError: naming both, and what the row should have.
    """
    telling = {kind: fields[-1] for kind, fields in FIELDS.items()}
    if values.get(telling[head]) is not None:
        return
    for kind, name in telling.items():
        if values.get(name) is not None:
            raise DataError(
                f"{where}: {name!r} makes this a row for {kind}, but the model is one for {head}; give rows with "
                f"{' and '.join(map(repr, FIELDS[head]))}"
            )


def texts_of(values: Mapping[str, Any], where: str, needed: str) -> tuple[str, str | None]:
    """Return a row's text, and the second one of a pair.

    Args:
        values: the fields.
        where: file and line.
        needed: what a row needs beside its text, for the message.

    Raises:
        DataError: no text, or one that cannot be used.
    """
    text = next((values[field] for field in TEXT_FIELDS if values.get(field) is not None), None)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: no text; each row needs a non-empty 'text' and a {needed!r}")
    pair = values.get("text_pair") or None
    if pair is not None and not isinstance(pair, str):
        raise DataError(f"{where}: 'text_pair' must be a string, got {reprlib.repr(pair)}")
    require_utf8(where, text, pair or "")
    return text, pair


def require_utf8(where: str, *texts: str) -> None:
    """Refuse texts that UTF-8 cannot hold.

    Raises:
        DataError: one of them is none.
    """
    if not all(map(is_text, texts)):
        raise DataError(f"{where}: half a surrogate pair is no character; write the text as UTF-8")
