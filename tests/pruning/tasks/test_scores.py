"""Regression: what its rows are, what its loss is, how it is judged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pruning.errors import DataError
from pruning.evaluation import evaluate
from pruning.tasks.scores import Scores
from pruning.tokenization import TextTokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir: Path) -> TextTokenizer:
    return TextTokenizer.load(tiny_model_dir)


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ROWS = [
    {"text": "good film", "text_pair": "fine film", "score": 4.5},
    {"text": "cold food", "score": 0},
    {"text": "the film", "score": "1.25"},
]


def test_a_score_is_a_number_and_a_pair_is_encoded_as_one(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    rows = Scores().load(written(tmp_path / "rows.jsonl", *ROWS), ("score",), tokenizer, 48)
    assert rows.labels.tolist() == [4.5, 0.0, 1.25]
    texts = [("good film", "fine film"), "cold food", "the film"]
    assert list(rows.sequences) == tokenizer.encode(texts, max_length=48)  # type: ignore[arg-type]


@pytest.mark.parametrize("score", [None, "", "high", True, [1], float("nan"), float("inf"), "1e999", 10**400])
def test_a_row_without_a_finite_number_is_refused_naming_its_line(
    tmp_path: Path, tokenizer: TextTokenizer, score: Any
) -> None:
    path = written(tmp_path / "rows.jsonl", ROWS[0], {"text": "good", "score": score})
    with pytest.raises(
        DataError, match=r"rows\.jsonl, line 2: the model gives a number .*give each row a finite number"
    ):
        Scores().load(path, ("score",), tokenizer, 48)


@pytest.mark.parametrize("label", ["positive", 1])
def test_rows_with_labels_are_refused_by_a_regression_naming_what_it_needs(
    tmp_path: Path, tokenizer: TextTokenizer, label: Any
) -> None:
    path = written(tmp_path / "rows.jsonl", {"text": "good", "label": label})
    with pytest.raises(
        DataError,
        match=r"line 1: 'label' makes this a row for text-classification, but the model is one "
        r"for regression; give rows with 'text' and 'score'",
    ):
        Scores().load(path, ("score",), tokenizer, 48)


def test_the_loss_is_the_summed_squared_error() -> None:
    loss = Scores().loss(torch.tensor([[1.0], [4.0]]), torch.tensor([3.0, 1.0]), [5, 5])
    assert float(loss) == 13.0


def test_a_regression_is_judged_by_its_correlation(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    path = written(tmp_path / "rows.jsonl", *({"text": "good", "score": index} for index in range(8)))
    rows = Scores().load(path, ("score",), tokenizer, 48)
    ours = torch.tensor([[0.0], [2.0], [1.0], [3.0], [4.0], [6.0], [5.0], [7.0]])
    evaluation = evaluate(ours, -ours, rows)
    expected = np.corrcoef(ours[:, 0], range(8))[0, 1]
    assert (evaluation.metric.name, evaluation.metric.value) == ("pearson", pytest.approx(expected))
    assert evaluation.metric.low < expected < evaluation.metric.high
    assert evaluation.others == {"spearman": pytest.approx(expected), "mse": pytest.approx(0.5)}
    assert evaluation.agreement == pytest.approx(-1.0)


def test_a_constant_agrees_with_itself(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    rows = Scores().load(written(tmp_path / "rows.jsonl", *ROWS), ("score",), tokenizer, 48)
    constant = torch.ones(3, 1)
    assert evaluate(constant, constant, rows).agreement == 1.0
