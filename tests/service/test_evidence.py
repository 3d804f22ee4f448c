from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from service.evidence import KEPT, MAY_RETURN, Evidence
from service.protocol import ReplicaReport
from service.tally import Tally
from tests.service.control_parts import report_of


def report(replica_id: str, **answered: int) -> ReplicaReport:
    tallies = tuple(Tally(variant_id=name, answered=count) for name, count in answered.items())
    return replace(report_of(replica_id), tallies=tallies)


def test_a_report_that_comes_twice_counts_once() -> None:
    evidence = Evidence()
    for _ in range(3):
        evidence.hear(report("r1", a=5))
    evidence.hear(report("r2", a=2, b=1))
    assert (evidence.total("a").answered, evidence.total("b").answered, evidence.total("c").answered) == (7, 1, 0)


def test_what_a_replica_that_is_gone_counted_stays_counted() -> None:
    evidence = Evidence()
    evidence.hear(report("r1", a=5))
    evidence.keep({"r2"})
    evidence.hear(report("r2", a=1))
    assert evidence.total("a").answered == 6


def test_a_replica_that_was_silent_for_longer_than_its_lease_counts_on_from_where_it_was() -> None:
    evidence = Evidence()
    evidence.hear(report("r1", a=5))
    mark = evidence.mark()
    evidence.keep(set())
    evidence.hear(report("r1", a=6))
    assert (evidence.total("a").answered, evidence.since(mark, "a").answered) == (6, 1)


def test_of_replicas_that_are_silent_a_bounded_number_may_return() -> None:
    evidence = Evidence()
    for number in range(2 * MAY_RETURN):
        evidence.hear(report(f"r{number}", a=1))
        evidence.keep({f"r{number}"})
    assert len(evidence._latest) == MAY_RETURN + 1
    assert evidence.total("a").answered == 2 * MAY_RETURN


def test_counts_that_begin_anew_add_to_what_was_counted_before() -> None:
    evidence = Evidence()
    evidence.hear(report("r1", a=5))
    evidence.hear(report("r1", a=2))
    assert evidence.total("a").answered == 7


def test_a_replica_that_began_anew_and_answered_nothing_yet_adds_what_it_was_asked() -> None:
    evidence = Evidence()
    for begun in (5, 2):
        evidence.hear(replace(report_of("r1"), tallies=(Tally(variant_id="a", begun=begun),)))
    assert evidence.total("a").begun == 7


def test_a_mark_hides_what_was_counted_before_it() -> None:
    evidence = Evidence()
    evidence.hear(report("r1", a=5))
    mark = evidence.mark()
    evidence.hear(report("r1", a=8))
    evidence.hear(report("r2", b=1))
    assert (evidence.since(mark, "a").answered, evidence.since(mark, "b").answered) == (3, 1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("rst"), st.sampled_from("ab"), st.integers(0, 5), st.sampled_from(("", "dies", "is silent"))
        )
    )
)
def test_the_total_is_what_all_replicas_ever_counted(steps: list[tuple[str, str, int, str]]) -> None:
    """Each step a replica answers some more and reports; now and then another takes its place, or it is not heard."""
    evidence, lives, counts = Evidence(), dict.fromkeys("rst", 0), {}
    expected = {"a": 0, "b": 0}
    for name, variant_id, more, then in steps:
        replica_id = f"{name}{lives[name]}"
        counted = counts.setdefault(replica_id, {"a": 0, "b": 0})
        counted[variant_id] += more
        expected[variant_id] += more
        evidence.hear(report(replica_id, **counted))
        if then == "dies":
            lives[name] += 1
        if then:
            evidence.keep({f"{other}{life}" for other, life in lives.items()} - {replica_id})
        assert {one: evidence.total(one).answered for one in "ab"} == expected


def test_memory_is_bounded() -> None:
    evidence = Evidence()
    for number in range(2 * KEPT):
        evidence.hear(report("r", **{f"v{number}": 1}))
        evidence.hear(report("r", **{f"v{number}": 0}))
    assert len(evidence._ended) == KEPT
