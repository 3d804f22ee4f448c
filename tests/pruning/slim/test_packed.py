import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.slim.packed import PackedBatch
from pruning.tokenization import Encoded
from tests.pruning.parts import sequences_of

lengths = st.lists(st.integers(min_value=1, max_value=6), min_size=1, max_size=12)


def batch_of(lengths: list[int]) -> tuple[list[Encoded], PackedBatch]:
    sequences = sequences_of(lengths, vocabulary=30, pairs=True)
    return sequences, PackedBatch.from_sequences(sequences)


@given(lengths=lengths)
def test_tokens_lie_end_to_end_in_the_order_of_the_sequences(lengths: list[int]) -> None:
    sequences, batch = batch_of(lengths)
    assert batch.ids_T.tolist() == [token for sequence in sequences for token in sequence.ids]
    assert batch.type_ids_T.tolist() == [kind for sequence in sequences for kind in sequence.type_ids]


@given(lengths=lengths)
def test_there_is_no_padding(lengths: list[int]) -> None:
    _, batch = batch_of(lengths)
    assert (batch.num_tokens, batch.num_sequences) == (sum(lengths), len(lengths))


@given(lengths=lengths)
def test_positions_start_at_zero_in_every_sequence(lengths: list[int]) -> None:
    _, batch = batch_of(lengths)
    assert batch.positions_T.tolist() == [position for length in lengths for position in range(length)]


@given(lengths=lengths)
def test_every_token_knows_its_sequence(lengths: list[int]) -> None:
    _, batch = batch_of(lengths)
    assert batch.sequence_T.tolist() == [index for index, length in enumerate(lengths) for _ in range(length)]


@given(lengths=lengths)
def test_the_first_token_of_every_sequence_is_known(lengths: list[int]) -> None:
    sequences, batch = batch_of(lengths)
    assert batch.ids_T[batch.first_B].tolist() == [sequence.ids[0] for sequence in sequences]


@pytest.mark.parametrize("sequences", [[], [Encoded([], [])], [Encoded([2, 3], [0, 0]), Encoded([], [])]])
def test_a_batch_without_tokens_is_refused(sequences: list[Encoded]) -> None:
    with pytest.raises(ValueError, match="at least one sequence, and at least one token in each"):
        PackedBatch.from_sequences(sequences)


def test_token_tensors_are_integers_that_index_embeddings() -> None:
    _, batch = batch_of([3, 1])
    assert {batch.ids_T.dtype, batch.type_ids_T.dtype, batch.positions_T.dtype} == {torch.int64}
