from typing import Any

import pytest

from pruning.comparison.request import USUAL_SCORERS, Comparison, draw_size, scorers_for
from pruning.errors import DataError, SpecError
from pruning.recovery.recipe import Recipe
from pruning.scores import SCORERS
from pruning.spec import Pattern, Recover, Scope


def comparison(**others: Any) -> Comparison:
    return Comparison(**{"scorers": ("fisher",), "levels": (0.5,)} | others)


def test_names_stand_once_and_levels_ascend_without_the_dense_one() -> None:
    made = comparison(scorers=("wanda", "fisher", "wanda"), levels=(0.7, 0.0, 0.3, 0.7))
    assert (made.scorers, made.levels) == (("wanda", "fisher"), (0.3, 0.7))


def test_every_level_is_cut_with_every_recovery() -> None:
    ways = (Recover.NONE, Recover.RECONSTRUCT)
    made = comparison(levels=(0.3, 0.7), recovers=("none", "reconstruct", "none"))
    cuts = [(spec.scorer, spec.sparsity, spec.recover) for spec in made.specs_of("wanda")]
    assert cuts == [("wanda", level, recover) for level in (0.3, 0.7) for recover in ways]


@pytest.mark.parametrize(("pattern", "usual"), [("structured", Recover.RECONSTRUCT), ("2:4", Recover.NONE)])
def test_without_a_recovery_the_usual_one_of_the_pattern_is_taken(pattern: str, usual: Recover) -> None:
    made = comparison(pattern=pattern)
    assert made.pattern is Pattern(pattern)
    assert made.recovers == (usual,)


def test_a_scope_is_that_of_every_cut() -> None:
    made = comparison(scope="layerwise")
    assert {spec.scope for spec in made.specs_of("fisher")} == {Scope.LAYERWISE}


def test_every_draw_is_distilled_by_its_own_seed() -> None:
    made = comparison(recovers=("distill",), recipe=Recipe(steps=3, seed=7))
    assert [made.recipe_of(seed) for seed in (0, 1)] == [Recipe(steps=3, seed=0), Recipe(steps=3, seed=1)]
    assert comparison().recipe_of(0) is None


@pytest.mark.parametrize("pattern", Pattern)
def test_the_usual_and_all_scorers_go_with_every_pattern(pattern: Pattern) -> None:
    assert set(USUAL_SCORERS) <= set(scorers_for(pattern)) <= SCORERS.keys()
    assert comparison(scorers=scorers_for(pattern), pattern=pattern).scorers == scorers_for(pattern)


def test_heads_and_neurons_are_ranked_by_every_scorer() -> None:
    assert scorers_for("structured") == tuple(SCORERS)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"scorers": ("fisher", "fishy")}, "unknown scorer 'fishy'; known: .*wanda"),
        (
            {"scorers": ("fisher", "obs"), "pattern": "unstructured"},
            "'obs' ranks whole heads .*'unstructured' leave it",
        ),
        ({"scorers": ("obs",), "pattern": "2:4"}, "'obs' ranks whole heads .* pattern='2:4' leave it out"),
        ({"scorers": ()}, "no scorer to compare; name some of fisher"),
        ({"levels": ()}, "no level to compare at; got .*: name sparsities above 0"),
        ({"levels": (0.0,)}, r"no level to compare at; got \[0.0\]"),
        ({"levels": (0.5, 1.0)}, "sparsity must lie in .*; got 1.0"),
        ({"levels": (float("nan"),)}, "sparsity must lie in .*; got nan"),
        ({"pattern": "2:4", "levels": (0.5, 0.7)}, "2:4.* got sparsity=0.7: use 0.5"),
        ({"pattern": "blocks"}, "unknown pattern 'blocks'; known: structured"),
        ({"recovers": ("magic",)}, "unknown recover 'magic'; known: none, reconstruct"),
        ({"recovers": ("none", "distill")}, "recover='distill' needs a recipe, .* give the steps .* such as 300"),
        ({"recipe": Recipe(steps=3)}, "nothing else takes one: .* with 'distill' and only with it"),
        ({"scope": "row"}, "scope='row' does not go with pattern='structured': leave it out"),
        ({"scope": "layer"}, "unknown scope 'layer'; known: global"),
        ({"recovers": ()}, "no recovery to compare; name some of none, reconstruct"),
        ({"seeds": 0}, "seeds must be a whole number of at least 1; got 0"),
        ({"seeds": -2}, "got -2"),
        ({"rows": 0}, "rows must be a whole number of at least 1; got 0"),
        ({"seeds": True}, "got True"),
        ({"seeds": 1.5}, "got 1.5"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_value_and_remedy(wish: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        comparison(**wish)


@pytest.mark.parametrize(
    ("available", "wanted", "size"),
    [(2, 2_048, 1), (40, 2_048, 32), (2_560, 2_048, 2_048), (2_559, 2_048, 2_047), (67_349, 512, 512), (40, 8, 8)],
)
def test_a_draw_is_as_many_rows_as_wanted_and_at_most_80_percent(available: int, wanted: int, size: int) -> None:
    assert draw_size(available, wanted) == size


def test_a_single_row_is_too_few_to_draw_from() -> None:
    with pytest.raises(DataError, match=r"1 training rows are too few .* give at least 2"):
        draw_size(1, 2_048)
