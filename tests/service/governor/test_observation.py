import pytest

from service.governor.observation import SLOW_S, Observation, Readings
from service.load import Load
from tests.service.governor.sightings import load
from tests.service.governor.simulation import LEVELS


def observed(*taken: dict[str, Load]) -> Observation | None:
    readings = Readings()
    for loads in taken:
        readings.take(loads)
    return readings.observe(now_s=7.0, level=LEVELS[0], changing=False)


def must(observation: Observation | None) -> Observation:
    assert observation is not None
    return observation


def test_one_reading_says_nothing() -> None:
    assert observed() is None
    assert observed({"a": load(1.0)}, {"a": load(1.0)}) is None


def test_rates_are_those_between_two_readings() -> None:
    end = load(1.5, accepted=10, accepted_tokens=200, answered_tokens=150, busy_s=0.25, model_s=0.3, loop_s=0.1)
    flow = must(observed({"a": load(1.0)}, {"a": end})).fast
    assert (flow.arrived_per_s, flow.answered_per_s, flow.utilisation) == (400, 300, 0.5)
    assert flow.model_share == pytest.approx(0.75)


def test_what_a_refused_request_asked_is_taken_for_the_mean_of_the_others() -> None:
    start = load(1.0, accepted=10, accepted_tokens=200)
    flow = must(observed({"a": start}, {"a": load(2.0, accepted=10, accepted_tokens=200, refused=5)})).fast
    assert (flow.arrived_per_s, flow.refused_per_s) == (100, 5)
    flow = must(observed({"a": start}, {"a": load(2.0, accepted=12, accepted_tokens=300, refused=1)})).fast
    assert flow.arrived_per_s == 150


def test_a_lost_report_and_one_that_comes_twice_change_no_rate() -> None:
    readings = [{"a": load(0.25 * tick, answered_tokens=25 * tick)} for tick in range(12)]
    whole = must(observed(*readings))
    assert must(observed(*readings[:5], readings[4], *readings[6:])).slow.answered_per_s == pytest.approx(100)
    assert whole.fast.answered_per_s == whole.slow.answered_per_s == pytest.approx(100)


def test_the_fast_rate_forgets_what_the_slow_one_still_knows() -> None:
    quiet = [{"a": load(0.25 * tick)} for tick in range(12)]
    burst = {"a": load(3.0, accepted=1, accepted_tokens=100)}
    after = must(observed(*quiet, burst))
    assert after.fast.arrived_per_s == pytest.approx(200)
    assert after.slow.arrived_per_s == pytest.approx(100 / SLOW_S, rel=0.35)


def test_replicas_add_up_and_the_busiest_and_slowest_speak_for_all() -> None:
    first = {"a": load(1.0), "b": load(50.0)}
    second = {
        "a": load(2.0, answered_tokens=100, busy_s=0.9, queue_tokens=5, queue_s=0.5, p99_s=0.2, model_p99_s=0.1),
        "b": load(51.0, answered_tokens=300, busy_s=0.2, queue_tokens=10, queue_s=0.1),
    }
    both = must(observed(first, second))
    assert (both.replicas, both.fast.answered_per_s, both.fast.utilisation) == (2, 400, 0.9)
    assert (both.queue_tokens, both.queue_s, both.p99_s, both.model_p99_s) == (15, 0.5, 0.2, 0.1)


def test_a_replica_that_is_gone_is_forgotten() -> None:
    first = {"a": load(1.0), "b": load(1.0)}
    both = {"a": load(2.0), "b": load(2.0, answered_tokens=9)}
    assert must(observed(first, both, {"a": load(3.0)})).replicas == 1
    assert observed(first, both, {"b": load(2.0)}, {"c": load(9.0)}) is None
