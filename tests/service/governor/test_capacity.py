from dataclasses import replace
from typing import Any

import pytest

from service.governor.capacity import FORGET_S, HALF_LIFE_S, SOLID, Capacity, cost_ratio
from service.governor.levels import Level
from tests.service.governor.sightings import full, seen
from tests.service.governor.simulation import LEVELS, ladder

DENSE, DOUBLE, QUADRUPLE = ladder(1.0, 2.0, 4.0)


def test_only_the_models_share_of_the_cost_follows_the_level() -> None:
    assert cost_ratio(DENSE, QUADRUPLE, 1.0) == 0.25
    assert cost_ratio(QUADRUPLE, DENSE, 1.0) == 4.0
    assert cost_ratio(DENSE, QUADRUPLE, 0.6) == pytest.approx(0.55)
    assert cost_ratio(DENSE, QUADRUPLE, 0.0) == 1.0


def solid(tokens_per_s: float, level: Level, *, start_s: float = 1.0, **others: Any) -> Capacity:
    """What a second of full lanes makes sure."""
    capacity = Capacity()
    for number in range(SOLID):
        capacity = capacity.learned(full(start_s + 0.25 * number, tokens_per_s, level, **others))
    return capacity


def test_nothing_is_known_before_lanes_were_half_busy() -> None:
    idle = seen(flow={"utilisation": 0.49})
    assert Capacity().learned(idle).of(DENSE, idle) is None


def test_busy_lanes_show_at_least_what_they_hold_and_the_most_that_was_seen_counts() -> None:
    capacity = Capacity().learned(seen(1.0, DENSE, {"answered_per_s": 400, "utilisation": 0.5}))
    assert capacity.of(DENSE, seen(1.0)) == 800
    capacity = capacity.learned(seen(2.0, DENSE, {"answered_per_s": 300, "utilisation": 0.6}))
    assert capacity.of(DENSE, seen(2.0)) == pytest.approx(800, rel=0.01)
    assert capacity.of(DENSE, seen(2.0 + HALF_LIFE_S)) == pytest.approx(400, rel=0.01)


def test_what_one_level_holds_predicts_the_others_until_they_are_measured() -> None:
    now = full(1.0, 1000, DENSE, flow={"model_share": 0.8})
    capacity = Capacity().learned(now)
    assert capacity.of(QUADRUPLE, now) == pytest.approx(1000 / 0.4)
    capacity = capacity.learned(full(2.0, 2900, QUADRUPLE))
    assert capacity.of(QUADRUPLE, seen(2.0)) == 2900
    assert capacity.of(DOUBLE, seen(2.0)) == pytest.approx(1000 / 0.6, rel=0.01)


def test_a_moment_in_which_something_else_had_the_processor_says_nothing_of_a_level() -> None:
    capacity = Capacity().learned(full(1.0, 1000, DENSE)).learned(full(1.25, 100, DENSE))
    assert capacity.of(DENSE, seen(1.25)) == pytest.approx(1000, rel=0.01)


def test_full_lanes_make_sure_what_a_level_holds_even_if_it_is_less_than_was_predicted_or_seen() -> None:
    capacity = Capacity().learned(full(0.0, 1000, DENSE))
    for number in range(SOLID):
        capacity = capacity.learned(full(5.0 + 0.25 * number, 700, DENSE))
    assert capacity.of(DENSE, seen(6.0)) == 700
    capacity = Capacity(measures={**solid(1200, QUADRUPLE).measures, **solid(1000, DENSE).measures})
    assert capacity.of(QUADRUPLE, seen(2.0)) == 1200
    assert capacity.of(DOUBLE, seen(2.0)) == 1200, "no slower level holds more"


def test_a_break_begins_anew_to_make_sure() -> None:
    capacity = Capacity().learned(full(0.0, 1000, DENSE))
    for at_s in (1.0, 1.25, 1.5, 5.0):
        capacity = capacity.learned(full(at_s, 700, DENSE))
    assert capacity.of(DENSE, seen(5.0)) == pytest.approx(1000, rel=0.01)


def test_what_was_sure_is_so_for_a_minute() -> None:
    capacity = Capacity(measures={DENSE: replace(solid(700, DENSE).measures[DENSE], best_per_s=1000)})
    assert capacity.of(DENSE, seen(1.0 + FORGET_S)) == 700
    assert capacity.of(DENSE, seen(2.0 + FORGET_S)) == pytest.approx(1000, rel=0.1)


def test_replicas_hold_together_what_each_was_seen_to() -> None:
    assert solid(1000, DENSE, replicas=2).of(DENSE, seen(2.0, replicas=3)) == 1500


def test_a_level_off_the_ladder_is_measured_like_any_other() -> None:
    other = replace(LEVELS[3], variant_id="dialled")
    assert solid(1800, other).of(LEVELS[0], seen(2.0)) == pytest.approx(1000, rel=0.01)


def test_the_ratio_of_two_levels_is_the_measured_one_where_there_is_one() -> None:
    assert Capacity().ratio(QUADRUPLE, seen(level=DENSE)) == 0.25
    capacity = Capacity(measures={**solid(1200, QUADRUPLE).measures, **solid(1000, DENSE).measures})
    assert capacity.ratio(QUADRUPLE, seen(2.0, DENSE)) == pytest.approx(1000 / 1200)
