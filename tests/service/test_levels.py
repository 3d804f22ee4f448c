from collections.abc import Collection
from pathlib import Path

import pytest

from pruning.encoder import load_base_model
from service.engine import Engine, Live
from service.errors import Invalid
from service.levels import Quality, Wish, chosen, wish_of
from service.policy import Policy
from tests.service.inference_parts import engine_of

FREE = Policy(accuracy_floor=0.0)


@pytest.fixture(scope="module")
def levels(tiny_model_dir: Path) -> dict[float, Engine]:
    base = load_base_model(tiny_model_dir)
    return {sparsity: engine_of(base, f"{sparsity:g}", sparsity) for sparsity in (0.0, 0.25, 0.5)}


def sparsity_of(engine: Engine | None) -> float | None:
    return None if engine is None else engine.manifest.spec.sparsity


def pick(
    wish: Wish, levels: dict[float, Engine], policy: Policy = FREE, distrusted: Collection[str] = ()
) -> float | None:
    return sparsity_of(chosen(wish, Live(1, levels[0.25]), levels.values(), policy, distrusted))


def test_who_asks_for_nothing_or_for_normal_gets_what_is_live(levels: dict[float, Engine]) -> None:
    assert pick(Wish(), levels) is None
    assert pick(Wish(quality=Quality.NORMAL), levels) is None


def test_a_sparsity_is_the_level_near_it(levels: dict[float, Engine]) -> None:
    assert [pick(Wish(sparsity=sparsity), levels) for sparsity in (0.0, 0.26, 0.5)] == [0.0, 0.25, 0.5]


def test_qualities_are_the_ends_of_what_the_policy_allows(levels: dict[float, Engine]) -> None:
    assert pick(Wish(quality=Quality.HIGH), levels) == 0.0
    assert pick(Wish(quality=Quality.LOW), levels) == 0.5
    bounded = FREE.changed({"min_sparsity": 0.1, "max_sparsity": 0.3})
    assert pick(Wish(quality=Quality.HIGH), levels, bounded) == pick(Wish(quality=Quality.LOW), levels, bounded) == 0.25


@pytest.mark.parametrize(
    ("sparsity", "policy", "words"),
    [
        (0.4, FREE, "No level near sparsity 0.4 is loaded; ask for one of 0, 0.25, 0.5"),
        (0.5, FREE.changed({"max_sparsity": 0.3}), "outside the bounds of this service, 0 to 0.3"),
        (0.0, FREE.changed({"min_sparsity": 0.1}), "outside the bounds of this service, 0.1 to 1"),
        (0.5, Policy(accuracy_floor=0.95), "below the floor 0.9500"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(
    levels: dict[float, Engine], sparsity: float, policy: Policy, words: str
) -> None:
    with pytest.raises(Invalid) as refused:
        pick(Wish(sparsity=sparsity), levels, policy)
    assert words in refused.value.detail


def test_a_quality_that_no_level_has_is_refused(levels: dict[float, Engine]) -> None:
    with pytest.raises(Invalid, match="above the accuracy floor"):
        pick(Wish(quality=Quality.LOW), levels, Policy(accuracy_floor=0.95))


def test_what_the_guard_turned_back_nobody_may_ask_for(levels: dict[float, Engine]) -> None:
    turned_back = {levels[0.5].manifest.variant_id}
    assert pick(Wish(quality=Quality.LOW), levels, distrusted=turned_back) == 0.25
    with pytest.raises(Invalid, match=r"sparsity 0.5 was turned back: .*; ask for one of 0, 0.25, or have an operator"):
        pick(Wish(sparsity=0.5), levels, distrusted=turned_back)
    everything = {engine.manifest.variant_id for engine in levels.values()}
    with pytest.raises(Invalid, match="No trusted level"):
        pick(Wish(quality=Quality.HIGH), levels, distrusted=everything)


def test_where_one_of_two_near_levels_was_turned_back_the_other_answers(
    levels: dict[float, Engine], tiny_model_dir: Path
) -> None:
    other = engine_of(load_base_model(tiny_model_dir), "0.5 anew", 0.5)
    resident = [*levels.values(), other]
    for turned_back, answers in ((levels[0.5], other), (other, levels[0.5])):
        distrusted = {turned_back.manifest.variant_id}
        assert chosen(Wish(sparsity=0.5), Live(1, levels[0.0]), resident, FREE, distrusted) is answers


def test_headers_ask_in_place_of_the_body_and_not_beside_it() -> None:
    body = Wish(sparsity=0.5)
    assert wish_of({}, body) == body
    assert wish_of({"x-sparsity": "0.3"}, Wish()) == Wish(sparsity=0.3)
    assert wish_of({"x-quality": "low"}, Wish()) == Wish(quality=Quality.LOW)
    assert wish_of({"x-cascade": "true", "x-sparsity": "0.5"}, Wish()) == Wish(sparsity=0.5, cascade=True)
    for headers in ({"x-quality": "low"}, {"x-cascade": "false"}):
        with pytest.raises(Invalid, match="not in both"):
            wish_of(headers, body)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-sparsity": "half"},
        {"x-sparsity": "1"},
        {"x-sparsity": "nan"},
        {"x-sparsity": "-0.1"},
        {"x-quality": "best"},
        {"x-sparsity": "0.5", "x-quality": "low"},
        {"x-cascade": "yes"},
        {"x-cascade": "true", "x-quality": "low"},
    ],
)
def test_headers_that_ask_for_no_level_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        wish_of(headers, Wish())
