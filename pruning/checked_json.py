"""JSON documents that nobody altered since they were written: a value by name, and its checksum beside it.

{"<name>": value, "sha256": digest of the value}
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pruning.errors import PruningError
from pruning.files import digest_of

CHECKSUM = "sha256"

Value = TypeVar("Value")


class Altered(ValueError):
    """A value that is not the one that was written."""


def with_checksum(name: str, value: Any) -> dict[str, Any]:
    """Return the document to write.

    Raises:
        TypeError, ValueError: JSON cannot hold ``value``.
    """
    return {name: value, CHECKSUM: digest_of(value)}


def checked(document: Any, name: str, kind: Callable[[Any], Value]) -> Value:
    """Return the value of a document that was read, as ``kind``, ``dict`` or ``list``.

    Raises:
        Altered: it does not match its checksum.
        KeyError, TypeError, ValueError: the document has another form.
    """
    value, checksum = kind(document[name]), str(document[CHECKSUM])
    if digest_of(value) != checksum:
        raise Altered(f"does not match its checksum {checksum[:12]}")
    return value


def read_checked_json(
    path: Path, name: str, kind: Callable[[Any], Value], refusal: type[PruningError], remedy: str
) -> Value:
    """Return the value of a document on disk, as ``kind``.

    Raises:
        PruningError: as a ``refusal`` that ends with ``remedy``: the file cannot be read, has another form, or was
            altered.
    """
    try:
        return checked(json.loads(path.read_text(encoding="utf-8")), name, kind)
    except Altered as error:
        raise refusal(f"{path} {error}; {remedy}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise refusal(f"{path} is damaged ({error}); {remedy}") from error
