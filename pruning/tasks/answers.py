"""Where in a text the answer to a question begins and ends.

A row has ``question``, ``context`` and ``answers``: ``{"text": [...], "answer_start": [...]}`` as SQuAD has them, the
first of which the loss compares with. A context that is too long is cut at its end: there is one sequence for each
question, no stride. An answer that is cut off takes no part in the loss, and cannot be found.
"""

import re
import reprlib
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pruning.data import IGNORED, Asked, LabelledSet, labelled_set
from pruning.errors import DataError
from pruning.heads import Head
from pruning.metrics import Metric, Reals, bootstrap_interval
from pruning.records import read_records
from pruning.tasks.base import Judgement
from pruning.tasks.fields import require_kind, require_utf8
from pruning.tasks.labels import random_signs
from pruning.tasks.soft import soft_label_loss
from pruning.tokenization import Aligned, TextTokenizer

MAX_ANSWER_TOKENS = 30
"""Longest answer that is looked for, as in BERT's own evaluation."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Answers:
    """Extractive question answering: SQuAD's F1 and exact match (Rajpurkar et al., 2016), with a bootstrap interval.

    Agreement is the share of questions with the dense model's answer.
    """

    head: ClassVar[Head] = Head.SPAN
    loss_name: ClassVar[str] = "span_cross_entropy"
    max_tokens: ClassVar[int] = 384

    def load(self, path: Path, labels: Sequence[str], tokenizer: TextTokenizer, max_length: int) -> LabelledSet:
        """Return the rows of a file, encoded.

        Raises:
            DataError: the file cannot be used, a row has no question, context or answer, an answer does not stand where
                it should, or a question is so long that no context fits beside it.
        """
        sequences, targets, truths = [], [], []
        for where, values in read_records(path):
            require_kind(values, where, Head.SPAN)
            question, context = (_text(values, field, where) for field in ("question", "context"))
            answers, start = _answers(values, where, context)
            aligned = tokenizer.align(context, before=question, max_length=max_length)
            if not aligned.spans:
                raise DataError(f"{where}: the question leaves no room for its context in {max_length} tokens; cut it")
            sequences.append(aligned.sequence)
            targets.append(_target(aligned, start, start + len(answers[0])))
            truths.append(Asked(context, tuple(aligned.spans), aligned.first, answers))
        return labelled_set(sequences, torch.tensor(targets), Head.SPAN, truths)

    def loss(self, outputs: Tensor, labels: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the mean of both ends' cross-entropies over all tokens of a sequence, summed over the rows."""
        losses = [
            functional.cross_entropy(ends_T2.T, ends, ignore_index=IGNORED, reduction="sum") / 2
            for ends_T2, ends in zip(outputs.split(list(lengths)), labels, strict=True)
        ]
        return torch.stack(losses).sum()

    def soft_loss(
        self, outputs: Tensor, target: Tensor, labels: Tensor, lengths: Sequence[int], temperature: float
    ) -> Tensor:
        """Return the mean of both ends' divergences from the dense model's, over all tokens, summed over the rows.

        A row whose answer is cut off takes part: the dense model points somewhere there too.
        """
        pairs = zip(outputs.split(list(lengths)), target.split(list(lengths)), strict=True)
        losses = [soft_label_loss(ends_T2.T, wanted_T2.T, temperature) / 2 for ends_T2, wanted_T2 in pairs]
        return torch.stack(losses).sum()

    def answers(self, labels: Tensor) -> int:
        """Return the number of rows; one whose answer is cut off counts, with no loss by its labels."""
        return len(labels)

    def own_losses(self, outputs: Tensor, lengths: Sequence[int], generator: torch.Generator) -> list[Tensor]:
        """Return one loss, of one answer drawn for each question: a loss for each token would be hundreds."""
        losses = []
        for ends_T2 in outputs.split(list(lengths)):
            log_p_2T = functional.log_softmax(ends_T2.T, dim=1)
            drawn_2 = torch.multinomial(log_p_2T.detach().exp(), 1, generator=generator)
            losses.append(log_p_2T.gather(1, drawn_2).sum() * random_signs((1,), generator)[0])
        return [torch.stack(losses).sum()]

    def judge(self, outputs: Tensor, reference: Tensor, rows: LabelledSet) -> Judgement:
        """Return mean F1 of the words of the best right answer, and the share of exact matches."""
        asked = [truth for truth in rows.truths if isinstance(truth, Asked)]
        ours, dense = _found(outputs, rows, asked), _found(reference, rows, asked)
        pairs = list(zip(ours, asked, strict=True))
        f1_N = np.array([max(word_f1(answer, right) for right in truth.answers) for answer, truth in pairs])
        exact = [any(normalized(answer) == normalized(right) for right in truth.answers) for answer, truth in pairs]
        low, high = bootstrap_interval(np.stack([f1_N, np.ones(len(f1_N))], axis=1), _mean)
        return Judgement(
            metric=Metric(name="f1", value=float(f1_N.mean()), low=low, high=high),
            agreement=sum(map(str.__eq__, ours, dense)) / len(asked),
            others={"exact_match": sum(exact) / len(asked)},
        )


def normalized(answer: str) -> str:
    """Return an answer without case, punctuation, articles and superfluous blanks, as SQuAD's own script does."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def word_f1(answer: str, right: str) -> float:
    """Return the F1 of the words that two answers share; 1 if both have none."""
    ours, theirs = normalized(answer).split(), normalized(right).split()
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs)) if ours or theirs else 1.0


def _mean(sums_B2: Reals) -> Reals:
    means: Reals = sums_B2[:, 0] / sums_B2[:, 1]
    return means


def _text(values: Mapping[str, Any], field: str, where: str) -> str:
    text = values.get(field)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: {field!r} must be a non-empty text; got {reprlib.repr(text)}")
    require_utf8(where, text)
    return text


def _answers(values: Mapping[str, Any], where: str, context: str) -> tuple[tuple[str, ...], int]:
    """Return (all right answers, first character of the first)."""
    given = values.get("answers")
    texts, starts = (given.get(key) if isinstance(given, Mapping) else None for key in ("text", "answer_start"))
    if not isinstance(texts, list) or not isinstance(starts, list) or not texts or len(texts) != len(starts):
        raise DataError(
            f"{where}: 'answers' must be {{'text': [...], 'answer_start': [...]}} with at least one answer, for every "
            f"question has one here; got {reprlib.repr(given)}"
        )
    for text, start in zip(texts, starts, strict=True):
        stands = isinstance(text, str) and text.strip() and isinstance(start, int) and start >= 0
        if not stands or context[start : start + len(text)] != text:
            raise DataError(
                f"{where}: the answer {reprlib.repr(text)} does not stand at character {reprlib.repr(start)} of its "
                "context; correct 'answer_start'"
            )
    return tuple(texts), starts[0]


def _target(aligned: Aligned, start: int, stop: int) -> tuple[int, int]:
    """Return the first and last token that touch these characters, of the whole sequence."""
    touching = [index for index, (begin, end) in enumerate(aligned.spans) if begin < stop and end > start]
    reaches_the_end = bool(touching) and touching[-1] == len(aligned.spans) - 1
    if not touching or (aligned.sequence.truncated and reaches_the_end and aligned.spans[-1][1] < stop):
        return IGNORED, IGNORED
    return aligned.first + touching[0], aligned.first + touching[-1]


def _found(outputs: Tensor, rows: LabelledSet, asked: Sequence[Asked]) -> list[str]:
    """Return the answer to every question: the likeliest span of its context."""
    parts = outputs.split([len(sequence.ids) for sequence in rows.sequences])
    return [_best_span(ends_T2, truth) for ends_T2, truth in zip(parts, asked, strict=True)]


def _best_span(ends_T2: Tensor, asked: Asked) -> str:
    start_C, end_C = ends_T2[asked.first : asked.first + len(asked.spans)].unbind(1)
    scores_CC = start_C[:, None] + end_C[None, :]
    allowed_CC = torch.ones_like(scores_CC, dtype=torch.bool).triu().tril(MAX_ANSWER_TOKENS - 1)
    best = int(scores_CC.masked_fill(~allowed_CC, -torch.inf).argmax())
    first, last = divmod(best, len(asked.spans))
    return asked.context[asked.spans[first][0] : asked.spans[last][1]]
