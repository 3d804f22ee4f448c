"""Token classification: which token carries a word's label, what the loss sees, how whole entities are counted."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pruning.data import IGNORED, LabelledSet, Tagged
from pruning.errors import DataError, ModelError
from pruning.evaluation import evaluate
from pruning.heads import Head
from pruning.tasks.tags import Tags
from pruning.tokenization import TextTokenizer
from tests.pruning.zoo import LABELS, tokenizer_of

NAMES = LABELS[Head.TAGS]
WORDS = ["the", "good", "films", "was", "coldly,", "liked"]
KINDS = ["bert", "roberta", "xlm-roberta"]


def folder_with(kind: str, folder: Path) -> Path:
    tokenizer_of(kind).save(str(folder / "tokenizer.json"))
    return folder


def load(
    folder: Path, *rows: dict[str, Any], kind: str = "bert", labels: Sequence[str] = NAMES, max_length: int = 48
) -> LabelledSet:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Tags().load(path, labels, TextTokenizer.load(folder_with(kind, folder)), max_length)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_words_first_token_is_the_one_that_the_library_aligns_with_it(tmp_path: Path, kind: str) -> None:
    words = [*WORDS, "unheard", "!", "é"]
    rows = load(tmp_path, {"tokens": words, "tags": ["O"] * len(words)}, kind=kind)
    reference = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    theirs = reference(words, is_split_into_words=True)
    assert rows.sequences[0].ids == theirs["input_ids"]
    (truth,) = rows.truths
    assert isinstance(truth, Tagged)
    assert list(truth.tokens) == [theirs.word_ids().index(word) for word in range(len(words))]


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_first_token_of_a_word_has_its_label(tmp_path: Path, kind: str) -> None:
    tags = ["O", "B-FILM", "I-FILM", "O", "B-FOOD", "O"]
    rows = load(tmp_path, {"tokens": WORDS, "tags": tags}, kind=kind)
    labelled = [label for label in rows.labels[0].tolist() if label != IGNORED]
    assert [NAMES[label] for label in labelled] == tags
    assert len(rows.sequences[0].ids) > len(WORDS) + 2  # some words are of several tokens


def test_byte_level_offsets_that_begin_with_the_blank_still_find_the_word(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("roberta")
    folder_with("roberta", tmp_path)
    rows = load(tmp_path, {"tokens": WORDS, "tags": ["O"] * 6}, kind="roberta")
    (truth,) = rows.truths
    assert isinstance(truth, Tagged)
    ids = rows.sequences[0].ids
    spelt = [tokenizer.id_to_token(ids[token]) for token in truth.tokens]
    assert [piece.removeprefix("\u0120")[0] for piece in spelt] == [word[0] for word in WORDS]


def test_words_that_were_cut_off_have_no_token_and_count_as_outside(tmp_path: Path) -> None:
    row = {"tokens": WORDS, "tags": ["B-FOOD"] * 6}
    rows = load(tmp_path, row, max_length=5)
    (truth,) = rows.truths
    assert isinstance(truth, Tagged)
    assert truth.tokens == (1, 2, 3, -1, -1, -1)
    outputs = torch.eye(5)[torch.full((5,), NAMES.index("B-FOOD"))]
    assert evaluate(outputs, outputs, rows).others["recall"] == 0.5


def test_numbers_are_labels_too_and_shorter_rows_are_filled_with_what_the_loss_ignores(tmp_path: Path) -> None:
    rows = load(tmp_path, {"tokens": ["good", "film"], "tags": [1, 2]}, {"tokens": ["film"], "tags": ["O"]})
    assert rows.labels.tolist() == [[IGNORED, 1, 2, IGNORED], [IGNORED, 0, IGNORED, IGNORED]]
    assert rows.names == NAMES


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"tokens": ["good"], "tags": ["B-CAR"]}, "does not know the label 'B-CAR'; it knows 'O', 'B-FILM'"),
        ({"tokens": ["good", "film"], "tags": ["O"]}, "one tag for each of 2 words; got 1"),
        ({"tokens": ["good"], "tags": "O"}, "one tag for each of 1 words; got 'O'"),
        ({"tokens": [], "tags": []}, "'tokens' must be a list of non-empty words"),
        ({"tokens": ["good", " "], "tags": ["O", "O"]}, "'tokens' must be a list of non-empty words"),
        ({"tokens": "good", "tags": ["O"]}, "'tokens' must be a list of non-empty words; got 'good'"),
        ({"tokens": ["good"]}, "'tags' must be a list with one tag"),
        ({"tokens": ["\ud83d"], "tags": ["O"]}, "half a surrogate pair"),
        (
            {"text": "good", "label": "O"},
            "'label' makes .* the model is one for token-classification; give rows with 'tokens' and 'tags'",
        ),
        ({"question": "a", "context": "b", "answers": {}}, "'answers' makes this a row for question-answering"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_naming_its_line(
    tmp_path: Path, row: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(DataError, match=f"rows.jsonl, line 2: .*{complaint}"):
        load(tmp_path, {"tokens": ["film"], "tags": ["O"]}, row)


@pytest.mark.parametrize("labels", [("NOUN", "VERB"), ("B-FILM", "I-FILM"), ("O", "FILM")])
def test_labels_that_are_no_bio_tags_are_refused(tmp_path: Path, labels: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match=f"the model's labels are {', '.join(labels)}; .*'O', 'B-X' and 'I-X'"):
        load(tmp_path, {"tokens": ["film"], "tags": [labels[0]]}, labels=labels)


def answered(rows: LabelledSet, *tags: Sequence[str]) -> Tensor:
    """Outputs that give every word's first token a tag, and every other token one that must not count."""
    outputs = []
    for sequence, truth, answers in zip(rows.sequences, rows.truths, tags, strict=True):
        assert isinstance(truth, Tagged)
        best = torch.full((len(sequence.ids),), NAMES.index("I-FOOD"))
        for token, tag in zip(truth.tokens, answers, strict=True):
            best[token] = NAMES.index(tag)
        outputs.append(torch.nn.functional.one_hot(best, len(NAMES)).float())
    return torch.cat(outputs)


def test_whole_entities_count_and_nothing_less(tmp_path: Path) -> None:
    true = [["B-FILM", "I-FILM", "O", "B-FOOD", "O", "O"], ["O", "B-FOOD"]]
    rows = load(tmp_path, {"tokens": WORDS, "tags": true[0]}, {"tokens": ["cold", "food"], "tags": true[1]})
    ours = answered(rows, ["B-FILM", "O", "O", "B-FOOD", "O", "B-FILM"], ["O", "O"])
    evaluation = evaluate(ours, answered(rows, *true), rows)
    assert (evaluation.metric.name, evaluation.metric.value) == ("entity_f1", pytest.approx(2 * 1 / (3 + 3)))
    assert evaluation.others == pytest.approx({"precision": 1 / 3, "recall": 1 / 3, "word_accuracy": 5 / 8})
    assert evaluation.agreement == 5 / 8
    assert evaluation.rows == 2
    assert evaluation.metric.low <= evaluation.metric.value <= evaluation.metric.high


def test_who_answers_as_tagged_is_right_everywhere(tmp_path: Path) -> None:
    true = ["B-FILM", "I-FILM", "O", "B-FOOD", "O", "O"]
    rows = load(tmp_path, {"tokens": WORDS, "tags": true})
    evaluation = evaluate(answered(rows, true), answered(rows, true), rows)
    assert (evaluation.metric.value, evaluation.metric.low, evaluation.agreement) == (1.0, 1.0, 1.0)


def test_the_loss_is_that_of_labelled_tokens_alone(tmp_path: Path) -> None:
    rows = load(tmp_path, {"tokens": WORDS, "tags": ["O"] * 6}, {"tokens": ["cold", "food"], "tags": [3, 4]})
    lengths = [len(sequence.ids) for sequence in rows.sequences]
    outputs = torch.randn(sum(lengths), len(NAMES), generator=torch.Generator().manual_seed(0))
    logs = outputs.log_softmax(1)
    expected = sum(
        -logs[start + token, label]
        for start, truth in zip((0, lengths[0]), rows.truths, strict=True)
        if isinstance(truth, Tagged)
        for token, label in zip(truth.tokens, truth.tags, strict=True)
    )
    torch.testing.assert_close(Tags().loss(outputs, rows.labels, lengths), expected)


def test_the_digest_tells_tags_apart_and_not_how_far_the_rows_are_filled_up(tmp_path: Path) -> None:
    short, long = {"tokens": ["good"], "tags": ["O"]}, {"tokens": WORDS, "tags": ["O"] * 6}
    alone, together = load(tmp_path, short), load(tmp_path, long, short)
    assert together.subset([1]).digest == alone.digest
    assert load(tmp_path, short | {"tags": ["B-FOOD"]}).digest != alone.digest
