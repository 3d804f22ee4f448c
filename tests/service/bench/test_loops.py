import json

import pytest

from loadtests.records import Reply
from service.bench.errors import BenchError
from service.bench.loops import LOOPS, bodies_of, computing_s, reading_of
from tests.service.bench.bench_parts import timed_reply

BATCHED, SINGLE = LOOPS[0], LOOPS[2]


def test_a_batch_that_several_requests_shared_is_counted_once() -> None:
    together = [timed_reply(0.0, 0.010), timed_reply(0.002, 0.011), timed_reply(0.004, 0.011)]
    assert computing_s(together) == pytest.approx(0.004)


def test_batches_that_took_equally_long_one_after_the_other_are_counted_each() -> None:
    assert computing_s([timed_reply(0.0, 0.010), timed_reply(0.010, 0.020)]) == pytest.approx(0.008)


def test_the_time_in_which_two_batches_were_computed_at_once_counts_once() -> None:
    several = [timed_reply(0.0, 0.010), timed_reply(0.001, 0.012, inference_ms=5.0)]
    assert computing_s(several) == pytest.approx(0.006)  # from 6 ms to 12 ms


def test_a_batch_within_the_time_of_a_longer_one_adds_nothing() -> None:
    several = [timed_reply(0.0, 0.010, inference_ms=1.0), timed_reply(0.0, 0.012, inference_ms=11.0)]
    assert computing_s(several) == pytest.approx(0.011)


def test_a_reading_says_how_fast_and_where_the_time_went() -> None:
    reading = reading_of([timed_reply(0.0, 0.010), timed_reply(0.010, 0.020)], SINGLE, wall_s=0.020)
    assert reading.texts_per_s == pytest.approx(100)
    assert reading.shares == pytest.approx({"tokenization": 0.1, "inference": 0.4, "rest": 0.5})
    assert reading.stage_ms == pytest.approx(
        {"tokenization": 1.0, "queue": 2.0, "inference": 4.0, "answer": 1.0, "http": 2.0}
    )
    assert sum(reading.stage_ms.values()) == pytest.approx(10.0)  # the whole of a request, as its client saw it


def test_texts_are_counted_not_requests() -> None:
    assert reading_of([timed_reply(0.0, 1.0)], BATCHED, wall_s=1.0).texts_per_s == 32


def told_nothing() -> Reply:
    reply = timed_reply(0.0, 0.1)
    reply.times_ms.clear()
    return reply


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        ([timed_reply(0.0, 0.1), timed_reply(0.0, 0.1, status=503)], "answered 503, not 200"),
        ([], "answered nothing"),
        ([told_nothing()], "did not tell its times"),
    ],
)
def test_a_loop_without_good_answers_has_no_reading(replies: list[Reply], words: str) -> None:
    with pytest.raises(BenchError, match=words):
        reading_of(replies, SINGLE, wall_s=1.0)


def test_bodies_hold_all_texts_in_order_and_the_last_one_is_filled_up() -> None:
    bodies = [json.loads(body) for body in bodies_of(["a", ("b", "c"), "d"], 2)]
    assert bodies == [{"inputs": [["a"], ["b", "c"]]}, {"inputs": [["d"], ["a"]]}]


def test_a_single_text_and_a_single_pair_are_written_as_the_route_reads_them() -> None:
    assert [json.loads(body)["inputs"] for body in bodies_of(["a", ("b", "c")], 1)] == ["a", ["b", "c"]]
