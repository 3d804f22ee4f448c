import pytest

from pruning.encoder import BaseModel
from service.engine import Engine
from service.rehearsals import BATCHES, MEMORY_S, Kind, Rehearsals
from service.schedule import Lane
from tests.service.inference_parts import engine_of


@pytest.fixture
def live(base: BaseModel) -> Engine:
    return engine_of(base)


@pytest.fixture
def other(base: BaseModel) -> Engine:
    return engine_of(base)


def test_what_one_engine_ran_another_has_not_met(live: Engine, other: Engine) -> None:
    rehearsals = Rehearsals()
    rehearsals.ran(live, Lane.WIDE, [3, 4])
    kind = Kind(Lane.WIDE, 7)
    assert rehearsals.missing(live) == []
    assert rehearsals.missing(other) == [(kind, (3, 4))]
    rehearsals.met(other, kind)
    assert rehearsals.missing(other) == []


def test_batches_of_one_lane_and_like_size_are_one_kind_with_the_newest_as_its_example(
    live: Engine, other: Engine
) -> None:
    rehearsals = Rehearsals()
    for lane, lengths in ((Lane.NARROW, [18]), (Lane.WIDE, [17]), (Lane.WIDE, [9, 9])):
        rehearsals.ran(live, lane, lengths)
    assert rehearsals.missing(other) == [(Kind(Lane.WIDE, 18), (9, 9)), (Kind(Lane.NARROW, 18), (18,))]


def test_the_commonest_kinds_come_first_and_rare_ones_not_at_all(live: Engine, other: Engine) -> None:
    rehearsals = Rehearsals()
    for count, length in ((4, 1), (50, 2), (40, 3), (6, 4)):
        for _ in range(count):
            rehearsals.ran(live, Lane.WIDE, [length])
    assert [lengths for _, lengths in rehearsals.missing(other)] == [(2,), (3,)]
    rehearsals.ran(live, Lane.WIDE, [4])
    assert [lengths for _, lengths in rehearsals.missing(other)] == [(2,), (3,), (4,)]


def test_old_batches_are_forgotten_and_only_so_many_are_kept(live: Engine, other: Engine) -> None:
    now_s = 0.0
    rehearsals = Rehearsals(lambda: now_s)
    rehearsals.ran(live, Lane.WIDE, [1])
    now_s = MEMORY_S + 1
    assert rehearsals.missing(other) == []
    for length in (*[2] * BATCHES, *[3] * BATCHES):
        rehearsals.ran(live, Lane.WIDE, [length])
    assert [lengths for _, lengths in rehearsals.missing(other)] == [(3,)]
