from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.load import Load
from service.load_meter import WINDOW_S, LoadMeter


@dataclass
class Clocks:
    """A replica's clocks, set by hand."""

    now_s: float = 100.0
    process_s: float = 7.0
    loop_s: float = 2.0

    def meter(self, on_gpu: bool = False) -> LoadMeter:
        return LoadMeter(
            on_gpu=on_gpu,
            monotonic=lambda: self.now_s,
            process_s=lambda: self.process_s,
            loop_s=lambda: self.loop_s,
        )


def read(meter: LoadMeter) -> Load:
    return meter.load(queue_tokens=3, queue_s=0.5)


def test_nothing_has_happened_at_first() -> None:
    load = read(Clocks().meter())
    assert (load.refused, load.accepted, load.accepted_tokens, load.answered_tokens, load.busy_s) == (0, 0, 0, 0, 0.0)
    assert (load.p99_s, load.model_p99_s, load.queue_tokens, load.queue_s) == (None, None, 3, 0.5)


def test_what_comes_and_what_is_done_add_up() -> None:
    meter = Clocks().meter()
    meter.refused()
    for tokens in (10, 20):
        meter.accepted(tokens)
    meter.ran(30)
    load = read(meter)
    assert (load.refused, load.accepted, load.accepted_tokens, load.answered_tokens) == (1, 2, 30, 30)


def test_lanes_are_busy_for_the_share_of_them_that_runs_and_a_batch_under_way_counts_until_now() -> None:
    clocks = Clocks()
    meter = clocks.meter()
    meter.began(0.5)
    clocks.now_s += 1.0
    meter.began(0.5)
    clocks.now_s += 2.0
    meter.ended(0.5)
    clocks.now_s += 4.0
    assert read(meter).busy_s == pytest.approx(0.5 + 2.0 + 2.0)
    meter.ended(0.5)
    clocks.now_s += 8.0
    assert read(meter).busy_s == pytest.approx(4.5)


def test_on_the_processor_the_model_takes_what_the_event_loop_does_not() -> None:
    load = read(Clocks(process_s=7.0, loop_s=2.0).meter())
    assert (load.model_s, load.loop_s) == (5.0, 2.0)


def test_on_a_gpu_the_model_takes_the_time_that_lanes_are_busy() -> None:
    clocks = Clocks()
    meter = clocks.meter(on_gpu=True)
    meter.began(1.0)
    clocks.now_s += 3.0
    assert read(meter).model_s == pytest.approx(3.0)


def test_percentiles_are_of_the_last_two_seconds() -> None:
    clocks = Clocks()
    meter = clocks.meter()
    meter.answered(9.0)
    meter.computed(8.0)
    clocks.now_s += WINDOW_S
    assert (read(meter).p99_s, read(meter).model_p99_s) == (9.0, 8.0)
    meter.answered(0.1)
    clocks.now_s += 0.1
    assert (read(meter).p99_s, read(meter).model_p99_s) == (0.1, None)


@given(st.lists(st.floats(0.001, 10.0), min_size=1, max_size=300))
def test_at_most_one_answer_in_a_hundred_took_longer(times: list[float]) -> None:
    meter = Clocks().meter()
    for seconds in times:
        meter.answered(seconds)
    p99_s = read(meter).p99_s
    assert p99_s in times
    assert sum(seconds > p99_s for seconds in times) <= len(times) / 100
