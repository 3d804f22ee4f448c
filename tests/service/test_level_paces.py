import gc

from service.level_paces import SMALL_TOKENS, LevelPaces
from service.schedule import Lane


class Level:
    pass


def test_a_level_of_which_nothing_is_known_begins_with_small_batches() -> None:
    assert LevelPaces(0.05).tokens(Level(), Lane.WIDE) == SMALL_TOKENS


def test_a_budget_is_what_the_level_runs_in_time_on_the_lane() -> None:
    paces, dense, sparse = LevelPaces(0.5), Level(), Level()
    paces.record(dense, Lane.WIDE, tokens=1000, seconds=1.0)
    paces.record(dense, Lane.NARROW, tokens=600, seconds=1.0)
    paces.record(sparse, Lane.WIDE, tokens=4000, seconds=1.0)
    assert paces.tokens(dense, Lane.WIDE) == 500
    assert paces.tokens(dense, Lane.NARROW) == 300
    assert paces.tokens(sparse, Lane.WIDE) == 2000


def test_a_budget_follows_the_latest_batches_and_never_falls_below_a_small_one() -> None:
    paces, level = LevelPaces(0.5), Level()
    paces.record(level, Lane.WIDE, tokens=10_000, seconds=1.0)
    for _ in range(200):
        paces.record(level, Lane.WIDE, tokens=1000, seconds=1.0)
    assert paces.tokens(level, Lane.WIDE) == 500
    for _ in range(200):
        paces.record(level, Lane.WIDE, tokens=10, seconds=1.0)
    assert paces.tokens(level, Lane.WIDE) == SMALL_TOKENS


def test_an_engine_is_not_kept_by_its_pace() -> None:
    paces, level = LevelPaces(0.5), Level()
    paces.record(level, Lane.WIDE, tokens=1, seconds=1.0)
    del level
    gc.collect()
    assert len(paces._sums) == 0
