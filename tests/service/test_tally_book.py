from service.metrics import SECONDS_BUCKETS
from service.tally import Compared, Tally
from service.tally_book import KEPT, TallyBook


def test_each_variant_has_counts_of_its_own() -> None:
    book = TallyBook()
    book.answered("a", 0.001)
    book.answered("b", 1e9)
    book.failed("b")
    book.labelled("a", 2, 1)
    other, one = book.read()
    assert (one.variant_id, one.answered, one.failed, one.labelled, one.right) == ("a", 1, 0, 2, 1)
    assert (other.variant_id, other.answered, other.failed) == ("b", 1, 1)
    assert one.durations[SECONDS_BUCKETS.index(0.001)] == 1
    assert other.durations[-1] == 1 and len(other.durations) == len(SECONDS_BUCKETS) + 1


def test_comparisons_add_up_slice_by_slice() -> None:
    book = TallyBook()
    slices = [Compared(label="x", length="1-8", texts=3, agreed=2, kl_sum=0.5)]
    book.compared("a", slices)
    book.compared("a", [*slices, Compared(label="y", length="1-8", texts=1, agreed=1, kl_sum=0.0)])
    (tally,) = book.read()
    assert (tally.texts, tally.agreed) == (7, 5)
    assert tally.compared[0] == Compared(label="x", length="1-8", texts=6, agreed=4, kl_sum=1.0)


def test_the_variant_that_answered_least_recently_is_forgotten() -> None:
    book = TallyBook()
    for number in range(KEPT):
        book.answered(f"v{number}", 0.1)
    book.answered("v0", 0.1)
    book.answered("new", 0.1)
    known = {tally.variant_id for tally in book.read()}
    assert len(known) == KEPT and {"v0", "new"} <= known and "v1" not in known


def test_what_was_read_does_not_grow() -> None:
    book = TallyBook()
    book.answered("a", 0.1)
    before = book.read()
    book.answered("a", 0.1)
    assert before[0].answered == 1
    assert (book.read()[0] - before[0]) == Tally(variant_id="a", answered=1, durations=before[0].durations)
