"""Question answering: where answers stand among the tokens, what is found, how it is judged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pruning.data import IGNORED, Asked, LabelledSet
from pruning.errors import DataError
from pruning.evaluation import evaluate
from pruning.tasks.answers import MAX_ANSWER_TOKENS, Answers, normalized, word_f1
from pruning.tokenization import TextTokenizer
from tests.pruning.zoo import tokenizer_of

CONTEXT = "we liked the food, and the film was very goodly cold"
KINDS = ["bert", "roberta", "xlm-roberta"]


def row(answer: str = "the food", context: str = CONTEXT, question: str = "was it good") -> dict[str, Any]:
    return {
        "question": question,
        "context": context,
        "answers": {"text": [answer], "answer_start": [context.index(answer)]},
    }


def load(folder: Path, *rows: dict[str, Any], kind: str = "bert", max_length: int = 48) -> LabelledSet:
    tokenizer_of(kind).save(str(folder / "tokenizer.json"))
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return Answers().load(path, ("start", "end"), TextTokenizer.load(folder), max_length)


def pointing(rows: LabelledSet, *spans: tuple[int, int]) -> Tensor:
    """Outputs whose largest values stand at these tokens."""
    outputs = []
    for sequence, span in zip(rows.sequences, spans, strict=True):
        ends = torch.zeros(len(sequence.ids), 2)
        ends[span[0], 0], ends[span[1], 1] = 5.0, 5.0
        outputs.append(ends)
    return torch.cat(outputs)


def asked(rows: LabelledSet, index: int = 0) -> Asked:
    truth = rows.truths[index]
    assert isinstance(truth, Asked)
    return truth


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", ["the food", "we", "good", "goodly cold", CONTEXT])
def test_the_tokens_of_an_answer_spell_it(tmp_path: Path, kind: str, answer: str) -> None:
    rows = load(tmp_path, row(answer), kind=kind)
    first, last = rows.labels[0].tolist()
    truth = asked(rows)
    begin, end = truth.spans[first - truth.first][0], truth.spans[last - truth.first][1]
    assert answer in CONTEXT[begin:end]
    evaluation = evaluate(*[pointing(rows, (first, last))] * 2, rows)
    assert evaluation.metric.value >= 0.5
    if answer != "good":  # there a token may be longer than the answer
        assert evaluation.others["exact_match"] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_is_that_of_the_pair(tmp_path: Path, kind: str) -> None:
    rows = load(tmp_path, row(), kind=kind)
    (expected,) = TextTokenizer.load(tmp_path).encode([("was it good", CONTEXT)], max_length=48)
    assert (rows.sequences[0].ids, rows.sequences[0].type_ids) == (expected.ids, expected.type_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_long_row_the_context_alone_is_cut_and_an_answer_beyond_takes_no_part(tmp_path: Path, kind: str) -> None:
    long = CONTEXT + " good" * 60 + " bad"
    rows = load(tmp_path, row("bad", long), row("the food", long), kind=kind, max_length=24)
    tokenizer = TextTokenizer.load(tmp_path)
    assert [len(sequence.ids) for sequence in rows.sequences] == [24, 24]
    question = tokenizer.encode(["was it good"], max_length=48)[0].ids
    assert rows.sequences[0].ids[: len(question) - 1] == question[:-1]
    assert rows.labels[0].tolist() == [IGNORED, IGNORED]
    assert IGNORED not in rows.labels[1].tolist()


def test_the_answer_is_the_likeliest_span_of_the_context_in_its_order(tmp_path: Path) -> None:
    rows = load(tmp_path, row())
    first = asked(rows).first
    outputs = torch.zeros(len(rows.sequences[0].ids), 2)
    outputs[0] = 50.0  # outside of the context
    outputs[first + 3, 0], outputs[first + 1, 1] = 5.0, 5.0  # ends before it begins: the better of both ends counts
    outputs[first + 3, 1] = 4.0
    evaluation = evaluate(outputs, outputs, rows)
    assert evaluation.metric.value == word_f1("food", "the food")


def test_no_answer_is_longer_than_the_most_that_is_looked_for(tmp_path: Path) -> None:
    long = "good " * 40
    rows = load(tmp_path, row("good", long.strip()), max_length=60)
    truth = asked(rows)
    outputs = pointing(rows, (truth.first, truth.first + len(truth.spans) - 1))
    ours = evaluate(outputs, outputs, rows)
    words = 2 / (1 + MAX_ANSWER_TOKENS)
    assert ours.metric.value > words


@pytest.mark.parametrize(
    ("answer", "right", "f1"),
    [
        ("The food!", "food", 1.0),
        ("good food", "the food", 2 / 3),
        ("food food", "food", 2 / 3),
        ("cold", "food", 0.0),
        ("", "food", 0.0),
        ("the", "a", 1.0),
    ],
)
def test_f1_is_of_the_words_that_two_answers_share(answer: str, right: str, f1: float) -> None:
    assert word_f1(answer, right) == pytest.approx(f1)


@given(text=st.text(max_size=40))
def test_normalizing_twice_changes_nothing_more(text: str) -> None:
    once = normalized(text)
    assert normalized(once) == once


def test_the_best_right_answer_counts(tmp_path: Path) -> None:
    one = row() | {"answers": {"text": ["the food", "food, and"], "answer_start": [9, 13]}}
    rows = load(tmp_path, one)
    truth = asked(rows)
    food = next(index for index, (begin, _) in enumerate(truth.spans) if begin == 13)
    outputs = pointing(rows, (truth.first + food, truth.first + food))
    evaluation = evaluate(outputs, outputs, rows)
    assert (evaluation.metric.name, evaluation.metric.value, evaluation.others) == ("f1", 1.0, {"exact_match": 1.0})


def test_agreement_is_the_share_of_questions_with_the_dense_answer(tmp_path: Path) -> None:
    rows = load(tmp_path, row(), row())
    first = asked(rows).first
    ours, dense = pointing(rows, *[(first, first)] * 2), pointing(rows, (first, first), (first, first + 2))
    assert evaluate(ours, dense, rows).agreement == 0.5


def test_the_loss_is_the_mean_of_both_ends_over_rows_whose_answer_is_there(tmp_path: Path) -> None:
    rows = load(tmp_path, row(), row("cold"), max_length=16)
    lengths = [len(sequence.ids) for sequence in rows.sequences]
    outputs = torch.randn(sum(lengths), 2, generator=torch.Generator().manual_seed(0))
    first, last = rows.labels[0].tolist()
    logs = outputs[: lengths[0]].log_softmax(0)
    assert rows.labels[1].tolist() == [IGNORED, IGNORED]
    torch.testing.assert_close(Answers().loss(outputs, rows.labels, lengths), -(logs[first, 0] + logs[last, 1]) / 2)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"question": " "}, "'question' must be a non-empty text"),
        ({"context": None}, "'context' must be a non-empty text; got None"),
        ({"answers": {"text": [], "answer_start": []}}, "with at least one answer"),
        ({"answers": {"text": ["food"]}}, "with at least one answer"),
        ({"answers": "food"}, "with at least one answer"),
        ({"answers": {"text": ["food"], "answer_start": [3]}}, "'food' does not stand at character 3"),
        ({"answers": {"text": ["food"], "answer_start": ["13"]}}, "'food' does not stand at character '13'"),
        ({"answers": {"text": [""], "answer_start": [3]}}, "'' does not stand at character 3"),
        ({"question": "good " * 60}, "the question leaves no room for its context in 48 tokens"),
        (
            {"answers": None, "label": 1},
            "'label' makes .* the model is one for question-answering; give rows with 'context' and 'question' and",
        ),
    ],
)
def test_a_row_that_does_not_fit_is_refused_naming_its_line(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(DataError, match=f"rows.jsonl, line 2: .*{complaint}"):
        load(tmp_path, row(), row() | changes)
