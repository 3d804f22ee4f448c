"""A label for every word: named entities.

A row has ``tokens``, the words of a sentence, and ``tags``, the label of each by name or number. The words are joined
by blanks and tokenized as any text is; a word's label stands at the first token that touches it, the others have none.
"""

import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from pruning.data import IGNORED, LabelledSet, Tagged, labelled_set
from pruning.errors import DataError, ModelError
from pruning.heads import Head
from pruning.metrics import Metric, Reals, bootstrap_interval, entities, f1
from pruning.records import read_records
from pruning.tasks.base import Judgement
from pruning.tasks.fields import require_kind, require_utf8
from pruning.tasks.labels import MAX_TOKENS, label_index, own_label_losses
from pruning.tasks.soft import soft_label_loss
from pruning.tokenization import Aligned, TextTokenizer

OUTSIDE = "O"
"""The tag of words that are part of nothing."""


class Tags:
    """Token classification: F1 of whole entities (Tjong Kim Sang and De Meulder, 2003), with a bootstrap interval.

    A word that no token stands for, since it was cut off or is empty to the tokenizer, is answered with ``O``: the
    entities there count as missed. Agreement is the share of words with the dense model's tag.
    """

    head: ClassVar[Head] = Head.TAGS
    loss_name: ClassVar[str] = "token_cross_entropy"
    max_tokens: ClassVar[int] = MAX_TOKENS

    def load(self, path: Path, labels: Sequence[str], tokenizer: TextTokenizer, max_length: int) -> LabelledSet:
        """Return the rows of a file, encoded.

        Raises:
            ModelError: the labels are no BIO tags.
            DataError: the file cannot be used, or a row has no words, or not one tag that the model knows for each.
        """
        _require_bio(labels)
        aligned, truths = [], []
        for where, values in read_records(path):
            require_kind(values, where, Head.TAGS)
            words = _words(values, where)
            tags = _tags(values, where, words, labels)
            aligned.append(tokenizer.align(" ".join(words), max_length=max_length))
            truths.append(Tagged(tags, _first_tokens(words, aligned[-1])))
        targets = [_targets(one, truth) for one, truth in zip(aligned, truths, strict=True)]
        padded = pad_sequence(targets, batch_first=True, padding_value=IGNORED)
        return labelled_set([one.sequence for one in aligned], padded, Head.TAGS, truths, labels)

    def loss(self, outputs: Tensor, labels: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the cross-entropy summed over all tokens that have a label."""
        return functional.cross_entropy(outputs, _packed(labels, lengths), ignore_index=IGNORED, reduction="sum")

    def soft_loss(
        self, outputs: Tensor, target: Tensor, labels: Tensor, lengths: Sequence[int], temperature: float
    ) -> Tensor:
        """Return the divergence from the dense model's labels, summed over all tokens that have a label."""
        labelled_T = _packed(labels, lengths) != IGNORED
        return soft_label_loss(outputs[labelled_T], target[labelled_T], temperature)

    def answers(self, labels: Tensor) -> int:
        """Return the number of tokens that have a label."""
        return int((labels != IGNORED).sum())

    def own_losses(self, outputs: Tensor, lengths: Sequence[int], generator: torch.Generator) -> list[Tensor]:
        """Return a loss for each label, of every token: right in the mean over its signs, as tokens share a row."""
        return own_label_losses(outputs, generator)

    def judge(self, outputs: Tensor, reference: Tensor, rows: LabelledSet) -> Judgement:
        """Return F1, precision and recall of entities, and the share of words with the right tag."""
        ours, dense = _answers(outputs, rows), _answers(reference, rows)
        true = [[rows.names[tag] for tag in truth.tags] for truth in _truths(rows)]
        counts_N3 = np.array([_found(*pair) for pair in zip(ours, true, strict=True)], dtype=np.float64)
        correct, predicted, wanted = counts_N3.sum(0)
        low, high = bootstrap_interval(counts_N3, _entity_f1)
        return Judgement(
            metric=Metric(name="entity_f1", value=float(_entity_f1(counts_N3.sum(0))), low=low, high=high),
            agreement=_share_equal(ours, dense),
            others={
                "precision": float(correct / predicted) if predicted else 0.0,
                "recall": float(correct / wanted) if wanted else 0.0,
                "word_accuracy": _share_equal(ours, true),
            },
        )


def _packed(labels: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the label of every token, [T]: of rows [n, longest] the tokens that are there, end to end."""
    return torch.cat([row[:length] for row, length in zip(labels, lengths, strict=True)])


def _require_bio(labels: Sequence[str]) -> None:
    strange = [label for label in labels if label != OUTSIDE and label.partition("-")[0] not in ("B", "I")]
    if OUTSIDE not in labels or strange:
        raise ModelError(
            f"the model's labels are {', '.join(labels)}; entities are counted by BIO tags: 'O', 'B-X' and 'I-X'; "
            "give its config.json the names that it was trained with (id2label)"
        )


def _words(values: Mapping[str, Any], where: str) -> list[str]:
    words = values.get("tokens")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word.strip() for word in words):
        raise DataError(f"{where}: 'tokens' must be a list of non-empty words; got {reprlib.repr(words)}")
    require_utf8(where, *words)
    return words


def _tags(values: Mapping[str, Any], where: str, words: Sequence[str], labels: Sequence[str]) -> tuple[int, ...]:
    tags = values.get("tags")
    if not isinstance(tags, list) or len(tags) != len(words):
        given = len(tags) if isinstance(tags, list) else reprlib.repr(tags)
        raise DataError(f"{where}: 'tags' must be a list with one tag for each of {len(words)} words; got {given}")
    return tuple(label_index(tag, where, labels) for tag in tags)


def _first_tokens(words: Sequence[str], aligned: Aligned) -> tuple[int, ...]:
    """Return the index of each word's first token in the sequence, or -1; a blank belongs to the word after it."""
    firsts, begin, token = [], 0, 0
    for word in words:
        end = begin + len(word)
        while token < len(aligned.spans) and aligned.spans[token][1] <= begin - 1:
            token += 1
        touches = token < len(aligned.spans) and aligned.spans[token][0] < end
        firsts.append(aligned.first + token if touches else -1)
        begin = end + 1
    return tuple(firsts)


def _targets(aligned: Aligned, truth: Tagged) -> Tensor:
    """Return the label of every token of a sequence."""
    targets_T = torch.full((len(aligned.sequence.ids),), IGNORED)
    for tag, token in zip(truth.tags, truth.tokens, strict=True):
        if token >= 0:
            targets_T[token] = tag
    return targets_T


def _truths(rows: LabelledSet) -> list[Tagged]:
    return [truth for truth in rows.truths if isinstance(truth, Tagged)]


def _answers(outputs: Tensor, rows: LabelledSet) -> list[list[str]]:
    """Return the tag of every word of every row."""
    best = outputs.argmax(1).split([len(sequence.ids) for sequence in rows.sequences])
    return [
        [OUTSIDE if token < 0 else rows.names[tags[token]] for token in truth.tokens]
        for tags, truth in zip((part.tolist() for part in best), _truths(rows), strict=True)
    ]


def _found(ours: Sequence[str], true: Sequence[str]) -> tuple[int, int, int]:
    """Return (entities found, entities answered, entities that are there)."""
    answered, there = entities(ours), entities(true)
    return len(answered & there), len(answered), len(there)


def _entity_f1(counts_X3: Reals) -> Reals:
    correct, predicted, wanted = np.moveaxis(counts_X3, -1, 0)
    return f1(correct, predicted, wanted)


def _share_equal(ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]) -> float:
    same = [one == other for pair in zip(ours, theirs, strict=True) for one, other in zip(*pair, strict=True)]
    return sum(same) / len(same)
