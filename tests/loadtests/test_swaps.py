from itertools import pairwise

import pytest

from loadtests.admin import Operation
from loadtests.errors import LoadTestError
from loadtests.swaps import Kind, Step, Swap, every_swap_commits, first_answers_s, plan_swaps, swap_table
from tests.loadtests.replies import reply

LEVELS = (0.0, 0.3, 0.5, 0.8)


def swap(
    generation: int | None,
    *,
    asked_s: float = 0.0,
    settled_s: float = 1.0,
    kind: Kind = Kind.LADDER,
    phase: str = "committed",
) -> Swap:
    operation = Operation(id="op", phase=phase, generation=generation, detail="")
    step = Step(sparsity=0.5, kind=kind)
    return Swap(step=step, asked_s=asked_s, settled_s=settled_s, operation=operation, error="")


def test_half_of_a_plan_goes_to_levels_never_seen_before() -> None:
    steps = plan_swaps(LEVELS, 200, seed=1, start=0.0)
    new = [step.sparsity for step in steps if step.kind is Kind.NEW]
    assert len(steps) == 200 and len(new) == 100
    assert len(set(new)) == 100
    assert all(0.0 < sparsity < 0.8 and sparsity not in LEVELS for sparsity in new)
    assert {step.sparsity for step in steps if step.kind is Kind.LADDER} == set(LEVELS)


@pytest.mark.parametrize(("share", "new"), [(0.0, 0), (0.1, 20), (1.0, 200)])
def test_as_many_levels_of_a_plan_are_new_as_asked(share: float, new: int) -> None:
    steps = plan_swaps(LEVELS, 200, seed=1, start=0.0, new_share=share)
    assert sum(step.kind is Kind.NEW for step in steps) == new


def test_levels_of_earlier_runs_are_not_new() -> None:
    known = [number / 1000 for number in range(1, 600)]
    new = [step.sparsity for step in plan_swaps(LEVELS, 20, seed=1, known=known) if step.kind is Kind.NEW]
    assert len(new) == 10
    assert not set(new) & set(known)


def test_every_step_of_a_plan_is_a_real_swap() -> None:
    path = [0.0, *(step.sparsity for step in plan_swaps(LEVELS, 200, seed=2, start=0.0))]
    assert all(before != after for before, after in pairwise(path))


def test_a_plan_follows_its_seed() -> None:
    assert plan_swaps(LEVELS, 50, seed=3) == plan_swaps(LEVELS, 50, seed=3)
    assert plan_swaps(LEVELS, 50, seed=3) != plan_swaps(LEVELS, 50, seed=4)


@pytest.mark.parametrize("levels", [(), (0.5,), (0.5, 0.503)])
def test_a_ladder_that_leaves_no_room_is_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(LoadTestError):
        plan_swaps(levels, 20, seed=0)


def test_the_first_answer_is_timed_from_the_put() -> None:
    swaps = [swap(2, asked_s=1.0), swap(4, asked_s=5.0), swap(9, asked_s=8.0), swap(None, phase="failed")]
    replies = [
        reply(done_s=0.5, generation=1),
        reply(done_s=1.25, generation=2),
        reply(done_s=1.5, generation=2),
        reply(done_s=6.0, generation=5),
        reply(done_s=6.5, generation=4),
        reply(done_s=7.0, generation=None),
    ]
    assert first_answers_s(swaps, replies) == {2: 0.25, 4: 1.0}


def test_swaps_that_commit_in_order_hold_the_law() -> None:
    assert every_swap_commits([swap(2), swap(3), swap(7)], planned=3).held


def test_a_swap_that_fails_or_goes_back_or_is_missing_breaks_the_law() -> None:
    assert every_swap_commits([swap(2), swap(None, phase="rolled_back")], planned=2).broken == 1
    assert every_swap_commits([swap(3), swap(2)], planned=2).broken == 1
    assert "only 1 of 5" in every_swap_commits([swap(2)], planned=5).detail


def test_durations_are_told_by_kind_of_swap() -> None:
    swaps = [swap(2, settled_s=0.1), swap(3, settled_s=0.3), swap(4, settled_s=2.0, kind=Kind.NEW)]
    table = swap_table(swaps, {2: 0.05, 3: 0.15})
    assert table.rows[0] == ("ladder", "2", "100.00", "200.00", "300.00", "50.00", "100.00", "150.00")
    assert table.rows[1] == ("new", "1", "2000.00", "2000.00", "2000.00", "-", "-", "-")
