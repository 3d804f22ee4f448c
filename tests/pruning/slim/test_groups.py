import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.slim.groups import RUN_TOKENS, SLACK_SHARE, SLACK_SLOTS, group_lengths

lengths = st.lists(st.integers(min_value=1, max_value=90), min_size=1, max_size=40)


@given(lengths=lengths)
def test_groups_cover_every_sequence_and_token_once_in_order(lengths: list[int]) -> None:
    groups = list(group_lengths(lengths))
    assert [group.first for group in groups] == [0, *(group.first + group.count for group in groups[:-1])]
    assert [group.start for group in groups] == [0, *(group.stop for group in groups[:-1])]
    assert groups[-1].first + groups[-1].count == len(lengths)
    assert groups[-1].stop == sum(lengths)


@given(lengths=lengths)
def test_a_group_is_as_long_as_its_longest_sequence(lengths: list[int]) -> None:
    for group in group_lengths(lengths):
        members = lengths[group.first : group.first + group.count]
        assert group.length == max(members)
        assert (group.filling is None) == (len(set(members)) == 1)


@given(lengths=lengths)
def test_what_is_filled_up_is_bounded(lengths: list[int]) -> None:
    for group in group_lengths(lengths):
        members = lengths[group.first : group.first + group.count]
        assert max(members) - min(members) <= max(SLACK_SLOTS, SLACK_SHARE * max(members))


@given(lengths=lengths)
def test_filling_up_and_taking_out_gives_every_token_back(lengths: list[int]) -> None:
    for group in group_lengths(lengths):
        if group.filling is None:
            continue
        tokens = torch.arange(group.stop - group.start)
        slots = tokens.index_select(0, group.filling.source_S)
        assert torch.equal(slots.index_select(0, group.filling.slot_T), tokens)
        shown = group.filling.hidden_BS.logical_not()
        assert shown.sum(1).tolist() == lengths[group.first : group.first + group.count]
        assert torch.equal(slots.view(group.count, group.length)[shown], tokens)


def test_many_sequences_of_few_lengths_are_not_filled_up() -> None:
    many = [10] * RUN_TOKENS + [11] * RUN_TOKENS
    assert [(group.count, group.filling) for group in group_lengths(many)] == [(RUN_TOKENS, None), (RUN_TOKENS, None)]
    assert [group.count for group in group_lengths([10, 11])] == [2]
