from dataclasses import replace

import pytest

from service.governor.capacity import FORGET_S, Capacity, cost_ratio
from tests.service.governor.sightings import full, seen
from tests.service.governor.simulation import LEVELS, ladder

DENSE, DOUBLE, QUADRUPLE = ladder(1.0, 2.0, 4.0)


def test_only_the_models_share_of_the_cost_follows_the_level() -> None:
    assert cost_ratio(DENSE, QUADRUPLE, 1.0) == 0.25
    assert cost_ratio(QUADRUPLE, DENSE, 1.0) == 4.0
    assert cost_ratio(DENSE, QUADRUPLE, 0.6) == pytest.approx(0.55)
    assert cost_ratio(DENSE, QUADRUPLE, 0.0) == 1.0


def test_nothing_is_known_before_lanes_were_full() -> None:
    half = seen(flow={"utilisation": 0.5})
    idle_queue = replace(full(1.0, 900, DENSE), queue_s=0.0)
    assert Capacity().learned(half).learned(idle_queue).of(DENSE, half) is None


def test_without_a_measure_a_level_holds_at_least_what_busy_lanes_answered() -> None:
    half = seen(level=DENSE, flow={"answered_per_s": 400, "utilisation": 0.5})
    assert Capacity().at_least(DENSE, half) == 800
    assert Capacity().at_least(DOUBLE, half) == 1600


def test_what_one_level_holds_predicts_the_others_until_they_are_measured() -> None:
    now = full(1.0, 1000, DENSE, flow={"model_share": 0.8})
    capacity = Capacity().learned(now)
    assert capacity.of(DENSE, now) == 1000
    assert capacity.of(QUADRUPLE, now) == pytest.approx(1000 / 0.4)
    assert capacity.measured(QUADRUPLE, now) is None
    later = full(2.0, 1800, QUADRUPLE)
    capacity = capacity.learned(later)
    assert capacity.of(QUADRUPLE, later) == 1800
    assert capacity.of(DENSE, later) == 1000


def test_no_level_is_predicted_to_hold_more_than_a_faster_one_was_seen_to() -> None:
    capacity = Capacity().learned(full(1.0, 1000, DENSE)).learned(full(2.0, 1100, QUADRUPLE))
    assert capacity.of(DOUBLE, seen(3.0)) == 1000
    capacity = Capacity().learned(full(1.0, 1100, QUADRUPLE)).learned(full(2.0, 1000, DENSE))
    assert capacity.of(DOUBLE, seen(3.0)) == 1100


def test_replicas_hold_together_what_each_was_seen_to() -> None:
    capacity = Capacity().learned(full(1.0, 1000, DENSE, replicas=2))
    assert capacity.of(DENSE, seen(2.0, replicas=3)) == 1500


def test_a_measure_is_forgotten() -> None:
    capacity = Capacity().learned(full(1.0, 1000, DENSE))
    assert capacity.of(DENSE, seen(1.0 + FORGET_S)) == 1000
    assert capacity.of(DENSE, seen(1.1 + FORGET_S)) is None


def test_a_new_reading_moves_a_measure_and_a_lower_one_less_so() -> None:
    capacity = Capacity().learned(full(1.0, 1000, DENSE))
    up = capacity.learned(full(2.0, 2000, DENSE)).of(DENSE, seen(2.0))
    down = capacity.learned(full(2.0, 500, DENSE)).of(DENSE, seen(2.0))
    assert up is not None and down is not None
    assert 1000 < up < 2000 and 500 < down < 1000 and up - 1000 > 1000 - down


def test_a_level_off_the_ladder_is_measured_like_any_other() -> None:
    other = replace(LEVELS[3], variant_id="dialled")
    capacity = Capacity().learned(full(1.0, 1800, other))
    assert capacity.of(LEVELS[0], seen(2.0)) == pytest.approx(1000)
