import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.recovery.recipe import Recipe
from pruning.recovery.schedule import learning_rate_at, progress_of

SHARES = st.floats(0, 1)


def test_the_nearer_bound_says_how_far_a_run_is() -> None:
    recipe = Recipe(steps=100, minutes=1.0)
    assert progress_of(recipe, 50, 6.0) == 0.5
    assert progress_of(recipe, 10, 45.0) == 0.75
    assert progress_of(recipe, 10, 61.0) == 1.0
    assert progress_of(Recipe(steps=100), 50, 1e9) == 0.5
    assert progress_of(Recipe(minutes=2.0), 10**9, 60.0) == 0.5


@given(SHARES, SHARES, SHARES)
def test_the_rate_rises_to_its_highest_and_falls_to_zero(warm_up: float, one: float, other: float) -> None:
    recipe = Recipe(steps=1, warm_up=warm_up)
    first, second = sorted((one, other))
    rates = learning_rate_at(recipe, first), learning_rate_at(recipe, second)
    assert all(0 <= rate <= recipe.learning_rate * (1 + 1e-9) for rate in rates)
    if second < warm_up:
        assert rates[0] <= rates[1]
    if first >= warm_up:
        assert rates[0] >= rates[1]


def test_the_rate_at_the_corners() -> None:
    recipe = Recipe(steps=1, warm_up=0.1, learning_rate=1.0)
    assert [learning_rate_at(recipe, share) for share in (0.0, 0.05, 0.1, 0.55, 1.0)] == pytest.approx(
        [0.0, 0.5, 1.0, 0.5, 0.0]
    )
