"""Texts to token ids: a thin, thread-safe face of the ``tokenizers`` library.

Truncation happens here and not in the library, because there it is a setting of the shared tokenizer and
requests differ in it; the ids are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from tokenizers import Encoding, Tokenizer

from pruning.errors import ModelError

Text = str | tuple[str, str]
"""One text, or a pair of texts that are judged together."""


class Direction(StrEnum):
    """The end at which a long text is cut."""

    RIGHT = "right"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as the model reads it."""

    ids: list[int]
    """Token ids, special ones included."""
    type_ids: list[int]
    """Token types: 0 for the first text, 1 for the second of a pair."""
    truncated: bool = False
    """Whether tokens were cut off."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """A sequence, and what a text that stands at its end is in it."""

    sequence: Encoded
    first: int
    """Index of the text's first token in the sequence."""
    spans: list[tuple[int, int]]
    """Of each of the text's tokens the first character that it stands for, and one past the last."""


class TextTokenizer:
    """A model's tokenizer. Never changed after it is made, so any number of threads may share it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Take over ``tokenizer`` and switch off its own truncation and padding."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, model_dir: Path) -> Self:
        """Return the tokenizer of a model directory.

        Raises:
            ModelError: there is no ``tokenizer.json``, or it is not one.
        """
        path = model_dir / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"{model_dir} has no tokenizer.json; save its fast tokenizer there with save_pretrained")
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{path} is not a tokenizer: {error}; save it again with save_pretrained") from error

    def largest_id(self) -> int:
        """Return the largest token id that any text may get, special tokens included."""
        around = self._tokenizer.encode("a", "a").ids  # what is put around texts need not be in the vocabulary
        return max([*self._tokenizer.get_vocab(with_added_tokens=True).values(), *around], default=0)

    def encode(
        self,
        texts: Sequence[Text],
        *,
        max_length: int,
        truncate: bool = True,
        direction: Direction = Direction.RIGHT,
    ) -> list[Encoded]:
        """Return the tokens of every text, in order.

        With ``truncate``, none is longer than ``max_length`` tokens, special ones included; of a pair the longer
        text is cut first. Without it, longer ones are returned whole and the caller decides.
        """
        encodings = self._encode(texts)
        return [
            self._cut(text, max_length, direction)
            if truncate and len(encoding) > max_length
            else Encoded(encoding.ids, encoding.type_ids)
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def align(self, text: str, *, max_length: int, before: str | None = None) -> Aligned:
        """Return the tokens of ``text`` and where they stand in it.

        With ``before`` it is the second of a pair, and it alone is cut so that both fit into ``max_length`` tokens; if
        ``before`` leaves no room, of ``text`` nothing is left, and the sequence is longer.
        """
        room = max_length - self._tokenizer.num_special_tokens_to_add(before is not None)
        left = None if before is None else self._tokenizer.encode(before, add_special_tokens=False)
        right = self._tokenizer.encode(text, add_special_tokens=False)
        kept = max(0, room - (0 if left is None else len(left)))
        truncated = len(right) > kept
        right.truncate(kept)
        whole = self._tokenizer.post_process(right) if left is None else self._tokenizer.post_process(left, right)
        own = 0 if left is None else 1
        indices = [index for index, sequence in enumerate(whole.sequence_ids) if sequence == own]
        first = indices[0] if indices else len(whole)
        return Aligned(Encoded(whole.ids, whole.type_ids, truncated), first, right.offsets)

    def pieces(self, text: str, *, max_length: int) -> list[Encoded]:
        """Return all of ``text`` in sequences of at most ``max_length`` tokens, special ones around each."""
        room = max_length - self._tokenizer.num_special_tokens_to_add(False)
        whole = self._tokenizer.encode(text, add_special_tokens=False)
        whole.truncate(room)
        encodings = [self._tokenizer.post_process(part) for part in (whole, *whole.overflowing)]
        return [Encoded(encoding.ids, encoding.type_ids) for encoding in encodings]

    def _encode(self, texts: Sequence[Text]) -> list[Encoding]:
        if len(texts) == 1:
            text = texts[0]
            first, second = (text, None) if isinstance(text, str) else text
            return [self._tokenizer.encode(first, second)]
        return self._tokenizer.encode_batch_fast(list(texts))

    def _cut(self, text: Text, max_length: int, direction: Direction) -> Encoded:
        """Encode again without special tokens, cut, and put the special tokens around what is left."""
        first, second = (text, None) if isinstance(text, str) else text
        room = max_length - self._tokenizer.num_special_tokens_to_add(second is not None)
        left = self._tokenizer.encode(first, add_special_tokens=False)
        if second is None:
            left.truncate(room, direction=direction.value)
            encoding = self._tokenizer.post_process(left)
        else:
            right = self._tokenizer.encode(second, add_special_tokens=False)
            left_length, right_length = _pair_lengths(len(left), len(right), room)
            left.truncate(left_length, direction=direction.value)
            right.truncate(right_length, direction=direction.value)
            encoding = self._tokenizer.post_process(left, right)
        return Encoded(encoding.ids, encoding.type_ids, truncated=True)


def _pair_lengths(left: int, right: int, room: int) -> tuple[int, int]:
    """Share ``room`` tokens between two texts that need more: the shorter stays whole if it fits in its half."""
    short = min(left, right, room // 2)
    return (short, room - short) if left <= right else (room - short, short)
