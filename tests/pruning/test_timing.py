import pytest

from pruning.encoder import BaseModel
from pruning.slim.packed import PackedBatch
from pruning.timing import items_per_second, median_latency, single_text_latencies
from tests.pruning.parts import dense_model, sequences_of


def test_every_repeat_gives_a_reading_and_the_first_passes_none(base: BaseModel) -> None:
    sequences = sequences_of([5, 3, 9], vocabulary=base.shape.vocabulary)
    readings = single_text_latencies(dense_model(base), sequences, repeats=4)
    assert len(readings) == 4
    assert min(readings) > 0


def test_the_text_that_is_timed_has_the_median_length(base: BaseModel) -> None:
    timed: list[int] = []
    model = dense_model(base)
    model.register_forward_pre_hook(lambda _, inputs: timed.append(inputs[0].num_tokens))
    assert median_latency(model, sequences_of([40, 3, 9, 1, 30], vocabulary=base.shape.vocabulary), repeats=2) > 0
    assert set(timed) == {9}


def test_one_text_is_timed_at_a_time(base: BaseModel) -> None:
    seen: list[PackedBatch] = []
    model = dense_model(base)
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    single_text_latencies(model, sequences_of([4, 4], vocabulary=base.shape.vocabulary), repeats=1)
    assert {batch.num_sequences for batch in seen} == {1}


@pytest.mark.parametrize("total", [1, 31, 32, 33, 100])
def test_a_batch_is_timed_about_the_median_length(base: BaseModel, total: int) -> None:
    seen: list[PackedBatch] = []
    model = dense_model(base)
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    lengths = [1 + index % 20 for index in range(total)]
    assert items_per_second(model, sequences_of(lengths, vocabulary=base.shape.vocabulary)) > 0
    [batch] = seen
    assert batch.num_sequences == min(total, 32)
    if total == 100:
        assert set(batch.sequence_T.bincount().tolist()) == set(range(7, 15))
