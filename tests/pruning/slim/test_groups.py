import itertools
from collections.abc import Iterator

import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.slim.groups import RUN_TOKENS, SLACK_SHARE, SLACK_SLOTS, Group, group_lengths

lengths = st.lists(st.integers(min_value=1, max_value=90), min_size=1, max_size=40)


def grouped(lengths: list[int]) -> Iterator[tuple[Group, list[int]]]:
    """Yield each group with the lengths of its sequences."""
    first = 0
    for group in group_lengths(lengths):
        yield group, lengths[first : first + group.count]
        first += group.count


@given(lengths=lengths)
def test_groups_cover_every_sequence_and_token_once_in_order(lengths: list[int]) -> None:
    groups = list(group_lengths(lengths))
    assert sum(group.count for group in groups) == len(lengths)
    assert [group.start for group in groups] == [0, *(group.stop for group in groups[:-1])]
    assert groups[-1].stop == sum(lengths)


@given(lengths=lengths)
def test_a_group_is_as_long_as_its_longest_sequence(lengths: list[int]) -> None:
    for group, members in grouped(lengths):
        assert group.length == max(members)
        assert (group.filling is None) == (len(set(members)) == 1)


@given(lengths=lengths)
def test_what_is_filled_up_is_bounded(lengths: list[int]) -> None:
    for _, members in grouped(lengths):
        assert max(members) - min(members) <= max(SLACK_SLOTS, SLACK_SHARE * max(members))


@given(lengths=lengths)
def test_filling_up_and_taking_out_gives_every_token_back(lengths: list[int]) -> None:
    for group, members in grouped(lengths):
        if group.filling is None:
            continue
        tokens = torch.arange(group.stop - group.start)
        slots = tokens.index_select(0, group.filling.source_Z)
        assert torch.equal(slots.index_select(0, group.filling.slot_T), tokens)
        kept_BS = group.filling.kept_BS
        assert kept_BS.sum(1).tolist() == members
        assert torch.equal(slots.view(group.count, group.length)[kept_BS], tokens)


@given(lengths=lengths)
def test_enough_tokens_of_one_length_are_never_filled_up(lengths: list[int]) -> None:
    for group, members in grouped(lengths):
        longest_run = max(length * len(list(run)) for length, run in itertools.groupby(members))
        assert group.filling is None or longest_run < RUN_TOKENS


def test_a_long_run_is_apart_and_the_lengths_beside_it_are_filled_up() -> None:
    run = [40] * 10
    assert [group.count for group in group_lengths([38, 39, *run, 41, 42, 43])] == [2, 10, 3]
    assert [group.filling is None for group in group_lengths([38, 39, *run, 41, 42, 43])] == [False, True, False]
