"""Single decisions; what they add up to is in ``test_simulation``."""

from dataclasses import replace

import pytest

from service.governor.capacity import Capacity
from service.governor.decision import decide
from service.governor.levels import Bounds, Level
from service.governor.memory import LONGEST_WAIT_S, PROOF_S, QUIET_S, SETTLE_S, TICK_S, WAIT_S, Memory
from service.governor.moves import Move, Reason, Stay, Why
from service.governor.observation import Observation
from tests.service.governor.sightings import full, seen
from tests.service.governor.simulation import BOUNDS, LEVELS

DENSE, MIDDLE, SPARSEST = LEVELS[0], LEVELS[3], LEVELS[-1]
NOW_S = 100.0


def known(level: Level = DENSE, holds: float = 10_000) -> Memory:
    """A memory in which ``level`` has answered for long and is known to hold so many tokens a second."""
    capacity = Capacity().learned(full(NOW_S - 10, holds, level))
    return Memory(capacity=capacity, level=level, since_s=NOW_S - 60, last_s=NOW_S - TICK_S)


def pressed(now_s: float = NOW_S, arrived: float = 15_000, share: float = 1.0, **others: object) -> Observation:
    others = {"level": DENSE, "queue_s": 0.4, **others}
    flow = {"arrived_per_s": arrived, "answered_per_s": 10_000, "utilisation": 1.0, "model_share": share}
    return seen(now_s, flow=flow, **others)  # type: ignore[arg-type]


def test_two_ticks_of_a_queue_that_grows_are_a_move_to_the_densest_level_that_holds_what_comes() -> None:
    memory, first = decide(known(), pressed(), BOUNDS)
    assert isinstance(first, Stay) and first.reason.why is Why.WAITING
    _, second = decide(memory, pressed(NOW_S + TICK_S), BOUNDS)
    assert isinstance(second, Move) and second.level == MIDDLE and second.reason.why is Why.QUEUE
    assert "15000 tokens a second come" in second.reason.words


def test_one_refusal_is_enough() -> None:
    refused = pressed()
    refused = replace(refused, fast=replace(refused.fast, refused_per_s=4.0))
    _, decision = decide(known(), refused, BOUNDS)
    assert isinstance(decision, Move) and decision.reason.why is Why.REFUSALS


def test_while_a_change_is_under_way_nothing_is_decided() -> None:
    _, decision = decide(known(), pressed(changing=True), BOUNDS)
    assert isinstance(decision, Stay) and decision.reason.why is Why.WAITING


def test_a_level_that_holds_what_comes_has_a_moment_to_work_off_what_waits() -> None:
    memory = replace(known(MIDDLE, 22_000), since_s=NOW_S - 0.5, pressing=5)
    _, decision = decide(memory, pressed(level=MIDDLE), BOUNDS)
    assert isinstance(decision, Stay) and decision.reason.why is Why.WAITING
    _, decision = decide(replace(memory, since_s=NOW_S - SETTLE_S), pressed(level=MIDDLE), BOUNDS)
    assert isinstance(decision, Move) and decision.level == LEVELS[4]


def test_a_spike_that_goes_on_rising_is_followed_without_that_moment() -> None:
    memory = replace(known(MIDDLE, 18_000), since_s=NOW_S - 0.5, pressing=5)
    _, decision = decide(memory, pressed(level=MIDDLE, arrived=25_000), BOUNDS)
    assert isinstance(decision, Move) and decision.level == SPARSEST


def test_lanes_that_are_idle_half_the_time_are_not_what_keeps_requests_waiting() -> None:
    idle = pressed()
    idle = replace(idle, fast=replace(idle.fast, utilisation=0.5))
    _, decision = decide(replace(known(), pressing=5), idle, BOUNDS)
    assert isinstance(decision, Stay) and decision.reason.why is Why.NOT_THE_MODEL
    assert "busy 50% of the time" in decision.reason.words


def test_where_the_model_takes_little_of_the_time_no_accuracy_is_given_for_it() -> None:
    _, decision = decide(replace(known(), pressing=5), pressed(share=0.1), BOUNDS)
    assert isinstance(decision, Stay) and decision.reason.why is Why.NOT_THE_MODEL


def late(now_s: float = NOW_S, **others: object) -> Observation:
    others = {"p99_s": 0.8, "model_p99_s": 0.75, **others}
    return seen(now_s, flow={"utilisation": 0.8}, **others)  # type: ignore[arg-type]


def test_late_answers_alone_are_worth_one_level_and_another_one_only_if_that_helped() -> None:
    memory, decision = decide(replace(known(), pressing=1), late(), BOUNDS)
    assert isinstance(decision, Move) and decision.further and decision.reason.why is Why.LATENCY
    assert decision.level == LEVELS[1]
    moved = replace(memory, level=decision.level, since_s=NOW_S, pressing=5)
    _, helped = decide(moved, late(NOW_S + 3, level=decision.level, p99_s=0.55, model_p99_s=0.55), BOUNDS)
    assert isinstance(helped, Move) and helped.level == LEVELS[2]
    _, vain = decide(moved, late(NOW_S + 3, level=decision.level), BOUNDS)
    assert isinstance(vain, Stay) and vain.reason.why is Why.NOT_THE_MODEL


def test_after_a_quiet_time_one_level_further_is_tried_again() -> None:
    memory = replace(known(LEVELS[1], 13_000), tried_at_p99_s=0.5, pressed_s=NOW_S - QUIET_S, pressing=0)
    assert memory.pressed(late()).tried_at_p99_s is None
    assert replace(memory, pressed_s=NOW_S - QUIET_S + 1).pressed(late()).tried_at_p99_s == 0.5


def calm_ticks(memory: Memory, seconds: float, bounds: Bounds = BOUNDS, **others: object) -> tuple[Memory, list[Move]]:
    """Tick through calm seconds; return the memory and the moves."""
    moves = []
    for number in range(round(seconds / TICK_S)):
        memory, decision = decide(memory, seen(NOW_S + number * TICK_S, **others), bounds)  # type: ignore[arg-type]
        if isinstance(decision, Move):
            moves.append(decision)
    return memory, moves


def test_calm_must_last_before_a_denser_level_is_half_way_back() -> None:
    memory, moves = calm_ticks(known(SPARSEST, 30_000), WAIT_S - TICK_S, level=SPARSEST)
    assert not moves and memory.calm_s > 0
    _, moves = calm_ticks(known(SPARSEST, 30_000), WAIT_S + TICK_S, level=SPARSEST)
    assert [move.level for move in moves] == [MIDDLE] and moves[0].reason.why is Why.CALM


def test_no_denser_level_is_taken_that_would_be_nearly_full_or_late() -> None:
    busy = {"arrived_per_s": 9_000.0, "answered_per_s": 9_000.0, "utilisation": 0.9}
    _, moves = calm_ticks(known(LEVELS[1], 13_000), 30, level=LEVELS[1], flow=busy)
    assert not moves
    half = {"arrived_per_s": 5_500.0, "answered_per_s": 5_500.0, "utilisation": 0.6}
    _, moves = calm_ticks(known(LEVELS[1], 13_000), 30, level=LEVELS[1], flow=half, p99_s=0.45, model_p99_s=0.45)
    assert not moves
    _, moves = calm_ticks(known(LEVELS[1], 13_000), 6, level=LEVELS[1], flow=half)
    assert moves


def test_where_nobody_knows_what_a_denser_level_holds_it_is_tried_after_a_longer_calm() -> None:
    """Lanes that were never half busy measure nothing, and the next denser level takes three times as long."""
    bounds = replace(BOUNDS, levels=(DENSE, SPARSEST))
    memory = Memory(level=SPARSEST, since_s=NOW_S - 60, last_s=NOW_S)
    quiet = {"arrived_per_s": 5_000.0, "answered_per_s": 5_000.0, "utilisation": 0.4}
    _, moves = calm_ticks(memory, 3 * WAIT_S, bounds, level=SPARSEST, flow=quiet)
    assert not moves
    _, moves = calm_ticks(memory, 4 * WAIT_S + 1, bounds, level=SPARSEST, flow=quiet)
    assert [move.level for move in moves] == [DENSE]


def test_every_descent_that_is_taken_back_doubles_the_calm_before_the_next_and_proof_ends_that() -> None:
    back, again = (
        Move(level, sparser, Reason(Why.CALM, "r")) for level, sparser in ((MIDDLE, False), (SPARSEST, True))
    )
    memory = Memory()
    waits = []
    for _ in range(4):
        memory = memory.moved(seen(NOW_S), back).moved(seen(NOW_S + 1), again)
        waits.append(memory.wait_s)
    assert waits == [2 * WAIT_S, 4 * WAIT_S, LONGEST_WAIT_S, LONGEST_WAIT_S]
    memory = memory.moved(seen(NOW_S), back)
    assert memory.after(seen(NOW_S + PROOF_S - 1, MIDDLE)).wait_s == LONGEST_WAIT_S
    assert memory.after(seen(NOW_S + PROOF_S, MIDDLE)).wait_s == WAIT_S


@pytest.mark.parametrize(("sparsity", "expected"), [(0.05, "0.2"), (0.25, "0.3"), (0.9, "0.4")])
def test_a_level_that_may_not_answer_is_left_for_the_nearest_that_may(sparsity: float, expected: str) -> None:
    dialled = replace(MIDDLE, variant_id="dialled", sparsity=sparsity)
    bounds = replace(BOUNDS, min_sparsity=0.2, max_sparsity=0.4)
    _, decision = decide(Memory(), seen(level=dialled), bounds)
    assert isinstance(decision, Move) and decision.level.name == expected and decision.reason.why is Why.BOUNDS


def test_bounds_that_let_nothing_answer_move_nothing() -> None:
    _, decision = decide(Memory(), pressed(), replace(BOUNDS, accuracy_floor=0.99))
    assert isinstance(decision, Stay) and decision.reason.why is Why.LIMIT
