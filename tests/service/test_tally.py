import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.tally import Compared, Tally

counts = st.integers(0, 50)


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    names = draw(st.sets(st.tuples(st.sampled_from("ab"), st.sampled_from(["1-8", "9-16"]))))
    return Tally(
        variant_id="v",
        answered=draw(counts),
        begun=draw(counts),
        failed=draw(counts),
        timed_out=draw(counts),
        durations=(draw(counts), draw(counts)),
        compared=tuple(
            Compared(label=label, length=length, texts=texts, agreed=draw(st.integers(0, texts)), kl_sum=float(texts))
            for label, length in sorted(names)
            for texts in [draw(counts)]
        ),
        labelled=draw(counts),
        right=draw(counts),
    )


@given(tallies(), tallies())
def test_what_was_added_can_be_taken_away_and_sums_do_not_depend_on_order(one: Tally, other: Tally) -> None:
    both = one + other
    assert both == other + one
    assert (both - other).texts == one.texts
    assert (both - other).agreed == one.agreed
    assert (both - other).durations == one.durations
    assert (both - other).answered == one.answered


def test_shares_are_over_all_slices() -> None:
    tally = Tally(
        variant_id="v",
        compared=(
            Compared(label="a", length="1-8", texts=6, agreed=6, kl_sum=0.1),
            Compared(label="b", length="1-8", texts=2, agreed=1, kl_sum=0.3),
        ),
    )
    assert (tally.texts, tally.agreed, tally.agreement) == (8, 7, 0.875)
    assert tally.kl == pytest.approx(0.05)
    low, high = tally.agreement_interval
    assert low < 0.875 < high


def test_nothing_compared_has_no_share_and_every_share_is_possible() -> None:
    empty = Tally(variant_id="v")
    assert (empty.agreement, empty.kl, empty.agreement_interval) == (None, None, (0.0, 1.0))


def test_counts_of_two_variants_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        Tally(variant_id="v") + Tally(variant_id="w")
