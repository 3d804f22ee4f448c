from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.data import LabelledSet
from pruning.errors import DataError
from pruning.recovery.rows import FEWEST_ROWS, Batches, others_than, split

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=200)


@given(LENGTHS, st.integers(1, 9), st.integers(0, 3), st.integers(0, 2))
def test_every_epoch_sees_every_row_once(lengths: list[int], batch_rows: int, seed: int, epoch: int) -> None:
    batches = Batches(lengths, batch_rows, seed)
    steps = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
    seen = [batches.at(step) for step in steps]
    assert Counter(row for batch in seen for row in batch) == Counter(range(len(lengths)))
    assert all(1 <= len(batch) <= batch_rows for batch in seen)


@given(LENGTHS, st.integers(0, 400), st.integers(1, 4))
def test_workers_share_a_batch_evenly_and_none_is_idle(lengths: list[int], step: int, world: int) -> None:
    batches = Batches(lengths, 8, 0)
    whole = batches.at(step)
    shares = [batches.at(step, rank, world) for rank in range(world)]
    times = 1 if len(whole) >= world else world
    assert sorted(row for share in shares for row in share) == sorted(whole * times)
    assert min(map(len, shares)) >= max(1, len(whole) // world)


def test_a_batch_is_a_function_of_its_step_whatever_was_asked_before() -> None:
    lengths = [n % 17 + 1 for n in range(100)]
    batches = Batches(lengths, 8, 0)
    forward = [batches.at(step) for step in range(40)]
    assert [batches.at(step) for step in reversed(range(40))] == forward[::-1]
    assert [Batches(lengths, 8, 1).at(step) for step in range(40)] != forward
    assert forward[: batches.per_epoch] != forward[batches.per_epoch : 2 * batches.per_epoch]


def test_rows_of_like_length_share_a_batch() -> None:
    lengths = [n % 40 + 1 for n in range(400)]
    batches = Batches(lengths, 10, 0)
    spreads = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in map(batches.at, range(40))]
    assert max(spreads) <= 2


@given(st.integers(FEWEST_ROWS, 300), st.integers(1, 50), st.integers(0, 3))
def test_held_out_rows_are_never_trained_on(count: int, held_out_rows: int, seed: int) -> None:
    trained, held_out = split(range(count), held_out_rows, seed)
    assert sorted([*trained, *held_out]) == list(range(count))
    assert 1 <= len(held_out) <= min(held_out_rows, count // 10)
    assert split(range(count), held_out_rows, seed) == (trained, held_out)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="19 rows to train on are too few"):
        split(range(19), 5, 0)


def test_rows_that_judge_are_left_out(rows: LabelledSet) -> None:
    assert others_than(rows.subset([3, 5]), rows.subset(range(8))) == [0, 1, 2, 4, 6, 7]
