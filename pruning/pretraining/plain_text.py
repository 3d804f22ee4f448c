"""Plain text for training without labels: a file's texts, cut into pieces that fill a sequence each."""

from dataclasses import dataclass
from pathlib import Path

from pruning.errors import DataError
from pruning.files import digest_of
from pruning.records import read_records
from pruning.tasks.fields import TEXT_FIELDS, require_utf8
from pruning.tokenization import Encoded, TextTokenizer

SHORTEST = 8
"""A piece of fewer tokens, special ones included, is left out: there is little to learn from it."""


@dataclass(frozen=True, slots=True)
class PlainText:
    """Pieces of text, encoded, in the order of their file."""

    sequences: tuple[Encoded, ...]
    digest: str
    """Of all token ids and their order."""

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self.sequences)


def load_plain_text(path: Path, tokenizer: TextTokenizer, max_length: int, most: int) -> PlainText:
    """Return the first ``most`` pieces of a file's texts, each of at most ``max_length`` tokens.

    A row has ``text`` (or ``sentence``); what else it has is not looked at. A text is cut where a piece is full, and
    its last piece is as long as what is left of it.

    Raises:
        DataError: the file cannot be used, a row has no text, or no text is long enough.
    """
    pieces: list[Encoded] = []
    for where, values in read_records(path):
        text = next((values[field] for field in TEXT_FIELDS if isinstance(values.get(field), str)), None)
        if text is None:
            raise DataError(f"{where}: no text; each row of plain text needs a 'text'")
        require_utf8(where, text)
        pieces += [piece for piece in tokenizer.pieces(text, max_length=max_length) if len(piece.ids) >= SHORTEST]
        if len(pieces) >= most:
            break
    if not pieces:
        raise DataError(f"{path}: no text of at least {SHORTEST} tokens; give longer ones")
    kept = tuple(pieces[:most])
    return PlainText(kept, digest_of([piece.ids for piece in kept]))
