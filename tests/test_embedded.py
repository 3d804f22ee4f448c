"""The model and the rows that a newcomer starts with."""

from pathlib import Path

import pytest
import torch

from pruning.encoder import BaseModel, load_base_model
from pruning.metrics import wilson_interval
from pruning.prediction import predict_logits, screened_logits
from pruning.slim.convert import build_slim, dense_mask, slim_layers
from pruning.tasks.labels import encode_rows, read_rows
from pruning.tokenization import TextTokenizer
from scripts.check_rows import problems, read

ROOT = Path(__file__).parents[1]
MODEL, ROWS = ROOT / "embedded" / "model", ROOT / "embedded" / "rows"
SST2 = ROOT.parent / "shared" / "data" / "sst2" / "validation.jsonl"
MAX_BYTES = 32_000_000


@pytest.fixture(scope="module")
def embedded() -> BaseModel:
    return load_base_model(MODEL)


def judge(base: BaseModel, rows: Path) -> tuple[int, int]:
    """Return (rows judged as their labels do, rows)."""
    judged = encode_rows(read_rows(rows, base.labels), TextTokenizer.load(base.path))
    logits = predict_logits(build_slim(base, slim_layers(base, dense_mask(base.shape))), judged.sequences)
    return int((logits.argmax(1) == judged.labels).sum()), len(judged)


def test_the_rows_are_many_balanced_varied_and_no_two_alike() -> None:
    assert problems(read(ROWS / "calibration.jsonl"), read(ROWS / "evaluation.jsonl")) == []


def test_the_model_takes_no_more_than_its_share_of_a_clone() -> None:
    assert sum(file.stat().st_size for file in MODEL.rglob("*") if file.is_file()) <= MAX_BYTES


def test_the_model_loads_and_knows_two_sentiments(embedded: BaseModel) -> None:
    assert embedded.labels == ("negative", "positive")
    assert embedded.max_length >= 128


def test_the_model_judges_the_embedded_rows_better_than_chance(embedded: BaseModel) -> None:
    low, _ = wilson_interval(*judge(embedded, ROWS / "evaluation.jsonl"))
    assert low > 0.5


@pytest.mark.parametrize("kept", [1.0, 0.7, 0.4])
def test_screening_in_bfloat16_leaves_every_label_as_it_is(embedded: BaseModel, kept: float) -> None:
    judged = encode_rows(read_rows(ROWS / "evaluation.jsonl", embedded.labels), TextTokenizer.load(embedded.path))
    mask = dense_mask(embedded.shape)
    mask.neurons_LF[:, int(kept * embedded.shape.ffn) :] = False
    model = build_slim(embedded, slim_layers(embedded, mask))
    rows = judged.sequences[::3]
    assert torch.equal(screened_logits(model, rows).argmax(1), predict_logits(model, rows).argmax(1))


@pytest.mark.data
@pytest.mark.skipif(not SST2.is_file(), reason=f"needs the SST-2 validation rows at {SST2}")
def test_the_model_is_at_least_90_percent_right_on_sst2_validation(embedded: BaseModel) -> None:
    correct, rows = judge(embedded, SST2)
    assert rows == 872
    assert correct / rows >= 0.90
