import dataclasses

import pytest
import torch
from torch import Tensor

import pruning.prediction
from pruning.encoder import BaseModel
from pruning.heads import Head
from pruning.prediction import BATCH_SEQUENCES, SCREEN_SEQUENCES, judged_logits, predict_logits, screened_logits
from pruning.slim.bert import SlimBert
from pruning.slim.packed import PackedBatch
from pruning.tokenization import Encoded
from tests.pruning.parts import dense_model, logits_of, sequences_of

ROWS = 3 * BATCH_SEQUENCES


@pytest.fixture
def sequences(base: BaseModel) -> list[Encoded]:
    return sequences_of([1 + (7 * index) % 20 for index in range(ROWS)], vocabulary=base.shape.vocabulary)


@pytest.mark.parametrize("total", [1, BATCH_SEQUENCES, BATCH_SEQUENCES + 1])
def test_logits_come_back_in_the_order_of_the_sequences(base: BaseModel, sequences: list[Encoded], total: int) -> None:
    model = dense_model(base)
    together = predict_logits(model, sequences[:total])
    alone = torch.cat([logits_of(model, [sequence]) for sequence in sequences[:total]])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def close_to_call(base: BaseModel) -> SlimBert:
    """Return a model whose margins are smaller than what bfloat16 rounds away: both labels read nearly the same."""
    weight = base.tensors["classifier.weight"]
    tensors = base.tensors | {"classifier.weight": weight[:1] + 1e-3 * weight, "classifier.bias": torch.zeros(2)}
    return dense_model(dataclasses.replace(base, tensors=tensors))


def test_screening_finds_the_labels_of_float32_even_where_bfloat16_alone_does_not(
    base: BaseModel, sequences: list[Encoded]
) -> None:
    model = close_to_call(base)
    expected = predict_logits(model, sequences).argmax(1)
    low = predict_logits(pruning.prediction._in_bfloat16(model), sequences, batch=SCREEN_SEQUENCES).argmax(1)
    assert not torch.equal(low, expected)  # or this test shows nothing
    assert torch.equal(screened_logits(model, sequences).argmax(1), expected)


def rows_answered_in_float32(model: SlimBert, sequences: list[Encoded]) -> int:
    counts: list[int] = []

    def count(_: SlimBert, inputs: tuple[PackedBatch]) -> None:
        counts.append(inputs[0].num_sequences)

    low = pruning.prediction._in_bfloat16(model)
    with pytest.MonkeyPatch.context() as patch, model.register_forward_pre_hook(count):
        patch.setattr(pruning.prediction, "_in_bfloat16", lambda _: low)
        screened_logits(model, sequences)
    return sum(counts)


def test_clear_answers_are_computed_once(base: BaseModel, sequences: list[Encoded]) -> None:
    apart = torch.tensor([0.0, 100.0])
    model = dense_model(dataclasses.replace(base, tensors=base.tensors | {"classifier.bias": apart}))
    assert rows_answered_in_float32(model, sequences) == BATCH_SEQUENCES


def test_where_every_answer_is_close_to_call_all_are_computed_again(base: BaseModel, sequences: list[Encoded]) -> None:
    assert rows_answered_in_float32(close_to_call(base), sequences) == ROWS


def test_an_answer_that_is_not_finite_in_bfloat16_is_computed_again(
    base: BaseModel, sequences: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = dense_model(base)
    expected = predict_logits(model, sequences)

    class Overflowing:
        head = Head.LABEL

        def __call__(self, batch: PackedBatch) -> Tensor:
            return torch.full((batch.num_sequences, 2), torch.nan)

    monkeypatch.setattr(pruning.prediction, "_in_bfloat16", lambda _: Overflowing())
    torch.testing.assert_close(screened_logits(model, sequences), expected, atol=1e-5, rtol=0)


def test_the_model_itself_stays_in_float32(base: BaseModel, sequences: list[Encoded]) -> None:
    model = dense_model(base)
    screened_logits(model, sequences)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("supported", [True, False])
def test_between_batches_the_caller_may_wait(
    base: BaseModel, sequences: list[Encoded], supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning.prediction, "multiplies_bfloat16", lambda: supported)
    breaths: list[None] = []
    judged_logits(dense_model(base), sequences, lambda: breaths.append(None))
    assert len(breaths) >= (ROWS // SCREEN_SEQUENCES if supported else ROWS // BATCH_SEQUENCES)
