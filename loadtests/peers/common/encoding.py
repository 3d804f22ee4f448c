"""Texts to token ids and logits to labels, for the engines that are not torch."""

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

Answers = list[dict[str, str | float]]


class Encoding:
    """The checkpoint's tokenizer and label names."""

    def __init__(self, folder: Path, *, max_tokens: int) -> None:
        """Read both; texts are cut to ``max_tokens``."""
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(max_tokens)
        names = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        self._names = [names[str(place)] for place in range(len(names))]

    def ids_and_mask(self, texts: list[str], *, length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return token ids and mask, one row a text, padded to the longest or to ``length``."""
        found = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        ids = np.zeros((len(found), length or max(map(len, found))), np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(found):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return ids, mask

    def answers(self, logits: np.ndarray) -> Answers:
        """Return the best label of each row with its share of the softmax."""
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        shares = powers / powers.sum(-1, keepdims=True)
        return [{"label": self._names[row.argmax()], "score": float(row.max())} for row in shares]
