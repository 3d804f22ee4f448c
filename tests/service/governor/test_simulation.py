"""The governor's laws under simulated traffic; ``simulation`` says what is simulated."""

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.governor.levels import Bounds
from service.governor.moves import Move, Stay, Why
from tests.service.governor.simulation import BOUNDS, LEVELS, Replica, Trace, simulate, step

DENSE, SPARSEST = LEVELS[0], LEVELS[-1]
SPIKE_S, END_S = 10.0, 30.0


def steps_apart(trace: Trace, start_s: float) -> int:
    """How many steps of the ladder lie between the densest and the sparsest level that answered from a moment on."""
    places = [LEVELS.index(level) for level in trace.levels(start_s)]
    return max(places) - min(places)


def test_a_step_is_met_within_a_second_by_one_move_and_nothing_is_refused() -> None:
    trace = simulate(step(200, 800, SPIKE_S, END_S), 30)
    ((at_s, move),) = trace.moves()
    assert SPIKE_S < at_s <= SPIKE_S + 0.75 and move.sparser
    assert trace.refused() == 0
    assert trace.worst_p99_s(SPIKE_S + 6) < BOUNDS.slo_p99_s


def test_the_same_step_at_a_fixed_level_is_refused_or_late() -> None:
    """What the law above is worth: without a governor the step does not fit."""
    never = Bounds(levels=(DENSE,), slo_p99_s=BOUNDS.slo_p99_s, accuracy_floor=0.0)
    trace = simulate(step(200, 800, SPIKE_S, END_S), 30, bounds=never)
    assert trace.refused() > 1000 and not trace.moves()


@pytest.mark.parametrize("seed", range(3))
def test_dense_answers_again_within_a_minute_of_the_end_of_a_step(seed: int) -> None:
    trace = simulate(step(180, 900, SPIKE_S, END_S), END_S + 40, seed=seed)
    back_s = next(tick.at_s for tick in trace.ticks if tick.at_s > END_S and tick.level == DENSE)
    assert back_s < END_S + 30
    assert set(trace.levels(back_s)) == {DENSE}


def test_a_ramp_is_climbed_as_it_rises() -> None:
    trace = simulate(lambda now_s: 100 + 10 * now_s, 70)
    moves = trace.moves()
    assert len(moves) >= 2 and all(move.sparser for _, move in moves)
    assert trace.refused() == 0


def test_a_slow_wave_is_followed_down_and_up_again_and_nothing_is_refused() -> None:
    trace = simulate(lambda now_s: 500 - 400 * math.cos(now_s / 60 * math.tau), 120)
    assert {DENSE, SPARSEST} <= set(trace.levels(30))
    assert trace.refused() == 0


def test_a_fast_wave_is_not_followed() -> None:
    trace = simulate(lambda now_s: 500 + 400 * math.sin(now_s / 10 * math.tau), 120)
    assert len(trace.moves(30)) <= 4


def test_a_flash_crowd_is_met_at_once_and_dense_is_back_soon_after_it() -> None:
    trace = simulate(step(100, 3000, 10, 13), 50)
    first_s, first = trace.moves()[0]
    assert first_s <= 10.75 and first.level == SPARSEST and first.reason.why is Why.REFUSALS
    assert trace.levels()[-1] == DENSE


def test_answers_that_are_late_outside_queue_and_model_move_nothing_and_it_is_said_why() -> None:
    trace = simulate(lambda now_s: 150, 40, late_s=lambda draw: 1.0 if draw.random() < 0.02 else 0.0)
    assert trace.worst_p99_s(5) > BOUNDS.slo_p99_s
    assert not trace.moves()
    assert any(tick.decision.reason.why is Why.NOT_THE_MODEL for tick in trace.ticks)


def test_batches_that_stall_now_and_then_never_lead_to_the_sparsest_levels() -> None:
    """A stall of a second is time in the model, and what waits meanwhile is a queue; no level mends that."""
    trace = simulate(lambda now_s: 250, 90, stall_s=lambda draw: 1.0 if draw.random() < 0.002 else 0.0)
    assert trace.worst_p99_s(5) > BOUNDS.slo_p99_s
    assert max(level.sparsity for level in trace.levels()) <= 0.4


@pytest.mark.parametrize("rate", [330, 390, 450, 600, 750])
def test_steady_traffic_ends_within_one_step_of_the_ladder(rate: float) -> None:
    trace = simulate(lambda now_s: rate, 100)
    assert steps_apart(trace, 40) <= 1
    assert len(trace.moves(40)) <= 2
    assert trace.refused() == 0


def test_what_a_level_holds_in_service_counts_and_not_what_it_was_timed_at() -> None:
    trace = simulate(lambda now_s: 500, 100, really=lambda level: 1 + 0.5 * (level.items_per_s / 1000 - 1))
    assert trace.refused() == 0
    assert steps_apart(trace, 40) <= 1
    assert trace.worst_p99_s(20) < BOUNDS.slo_p99_s


def test_a_slow_replica_counts_as_the_others_do_not_help_it() -> None:
    trace = simulate(lambda now_s: 700, 60, replicas=[Replica(), Replica(speed=0.5)])
    assert trace.worst_p99_s(10) < BOUNDS.slo_p99_s
    assert steps_apart(trace, 20) <= 1


def test_several_replicas_share_what_one_could_not_hold() -> None:
    trace = simulate(lambda now_s: 800, 20, replicas=[Replica(), Replica(), Replica()])
    assert set(trace.levels()) == {DENSE}


def test_replicas_that_come_and_go_with_load_and_the_governor_do_not_undo_each_other() -> None:
    trace = simulate(
        lambda now_s: 500, 150, replicas=[Replica(), Replica()], there=lambda now_s: 2 if 50 <= now_s < 100 else 1
    )
    alone, together, left = (
        {level.sparsity for level in trace.levels(start_s + 20, start_s + 50)} for start_s in (0, 50, 100)
    )
    assert max(together) < min(alone | left)
    assert trace.moves(100)[0][0] < 103  # what one is left with, it sees soon
    assert trace.refused() == 0
    for start_s in (0, 50, 100):
        assert len(trace.moves(start_s, start_s + 20)) <= 3
        assert not trace.moves(start_s + 20, start_s + 50)


def test_without_traffic_the_densest_level_answers() -> None:
    trace = simulate(lambda now_s: 0, 30, level=SPARSEST)
    assert trace.levels()[-1] == DENSE


def test_a_load_that_no_level_holds_is_met_by_the_fastest_and_it_is_said_that_there_is_no_other() -> None:
    trace = simulate(lambda now_s: 2500, 20)
    assert trace.levels()[-1] == SPARSEST and len(trace.moves()) == 1
    assert trace.ticks[-1].decision.reason.why is Why.LIMIT


def test_no_accuracy_is_given_where_http_is_what_takes_the_time() -> None:
    trace = simulate(lambda now_s: 1500, 20, replicas=[Replica(speed=20.0, loop_s=0.002)])
    assert trace.worst_p99_s(5) > BOUNDS.slo_p99_s
    assert not trace.moves()
    assert trace.ticks[-1].decision.reason.why is Why.NOT_THE_MODEL


def test_a_queue_that_waits_for_an_idle_model_moves_nothing() -> None:
    """The event loop lets in less than the model could answer."""
    trace = simulate(lambda now_s: 600, 20, replicas=[Replica(speed=3.0, loop_s=0.004, shares_cores=False)])
    assert trace.worst_p99_s(10) > BOUNDS.slo_p99_s
    assert not trace.moves()
    assert trace.ticks[-1].decision.reason.why is Why.NOT_THE_MODEL


def test_a_move_that_comes_to_nothing_is_asked_for_again_but_not_at_every_tick() -> None:
    trace = simulate(lambda now_s: 800, 20, swaps_work=False)
    moves = trace.moves()
    assert 3 <= len(moves) <= 6
    assert all(later - earlier >= 5.0 for (earlier, _), (later, _) in itertools.pairwise(moves))


def test_new_bounds_are_obeyed_at_the_next_tick_and_it_is_said_why() -> None:
    narrow = replace(BOUNDS, min_sparsity=0.2, max_sparsity=0.4)
    trace = simulate(step(100, 1500, 20, 40), 60, bounds=lambda now_s: BOUNDS if now_s < 10 else narrow)
    (first_s, first), *_ = trace.moves()
    assert first_s == pytest.approx(10.0, abs=0.25)
    assert first.level == LEVELS[2] and first.reason.why is Why.BOUNDS
    assert LEVELS[4] in trace.levels(21, 30) and set(trace.levels(11)) <= set(LEVELS[2:5])
    assert trace.levels()[-1] == LEVELS[2]


def test_a_variant_that_a_guard_turned_back_is_left_out() -> None:
    barred = replace(BOUNDS, barred=frozenset({SPARSEST.variant_id, LEVELS[-2].variant_id}))
    trace = simulate(lambda now_s: 2500, 20, bounds=barred)
    assert trace.levels()[-1] == LEVELS[-3]


@settings(max_examples=25, deadline=None)
@given(
    loads=st.lists(st.integers(0, 2500), min_size=1, max_size=5),
    floor=st.sampled_from([0.0, 0.845, 0.865, 0.89, 0.95]),
    limits=st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.6]), st.sampled_from([0.3, 0.45, 0.6, 1.0])),
    start=st.sampled_from(LEVELS),
    seed=st.integers(0, 9),
)
def test_never_below_the_floor_nor_outside_the_bounds_and_every_decision_has_its_reason(
    loads: list[int], floor: float, limits: tuple[float, float], start: object, seed: int
) -> None:
    lowest, highest = min(limits), max(limits)
    bounds = replace(BOUNDS, accuracy_floor=floor, min_sparsity=lowest, max_sparsity=highest)
    trace = simulate(
        lambda now_s: loads[int(now_s // 3) % len(loads)],
        12,
        bounds=bounds,
        level=start,
        seed=seed,  # type: ignore[arg-type]
    )
    for tick in trace.ticks:
        assert isinstance(tick.decision, (Move, Stay)) and tick.decision.reason.words
        if isinstance(tick.decision, Move):
            goal = tick.decision.level
            assert goal.accuracy >= floor and lowest <= goal.sparsity <= highest and goal != tick.level
            assert tick.decision.sparser == (goal.sparsity > tick.level.sparsity)
