import dataclasses
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.errors import SpecError
from pruning.spec import (
    MOST_ROUNDS,
    SCOPES,
    TWO_FOUR_SPARSITY,
    Pattern,
    Precision,
    PruneSpec,
    Recover,
    Structures,
    way_of,
)

any_sparsity = st.floats(min_value=0, max_value=1, exclude_max=True)
common = {
    "scorer": st.sampled_from(["fisher", "taylor", "magnitude"]),
    "recover": st.sampled_from([None, *Recover]),
    "precision": st.sampled_from(Precision),
}
specs = st.one_of(
    st.builds(
        PruneSpec,
        sparsity=any_sparsity,
        pattern=st.just(Pattern.STRUCTURED),
        scope=st.sampled_from([None, *SCOPES[Pattern.STRUCTURED]]),
        rounds=st.integers(1, MOST_ROUNDS),
        **common,
    ),
    st.builds(
        PruneSpec,
        sparsity=any_sparsity,
        pattern=st.just(Pattern.STRUCTURED),
        structures=st.sampled_from(Structures),
        **common,
    ),
    st.builds(
        PruneSpec,
        sparsity=any_sparsity,
        pattern=st.just(Pattern.UNSTRUCTURED),
        scope=st.sampled_from([None, *SCOPES[Pattern.UNSTRUCTURED]]),
        **common,
    ),
    st.builds(PruneSpec, sparsity=st.sampled_from([0.0, 0.5]), pattern=st.just(Pattern.TWO_FOUR), **common),
)


@pytest.mark.parametrize("sparsity", [-0.1, -1e-12, 1, 1.0, 1.5, math.nan, math.inf, -math.inf, 10**400])
def test_a_sparsity_outside_zero_to_one_is_refused(sparsity: float) -> None:
    with pytest.raises(SpecError, match=r"sparsity must lie in \[0, 1\)"):
        PruneSpec(sparsity=sparsity)


@pytest.mark.parametrize("sparsity", ["0.5", True, False, None, [0.5]])
def test_a_sparsity_that_is_no_number_is_refused(sparsity: Any) -> None:
    with pytest.raises(SpecError, match="sparsity must be a number"):
        PruneSpec(sparsity=sparsity)


@pytest.mark.parametrize("scorer", [["fisher"], {}, None, 7])
def test_a_scorer_that_is_no_name_is_refused_naming_what_was_given(scorer: Any) -> None:
    complaint = re.escape(f"scorer must be a name, such as 'fisher'; got {scorer!r}")
    with pytest.raises(SpecError, match=complaint):
        PruneSpec(sparsity=0.5, scorer=scorer)
    with pytest.raises(SpecError, match=complaint):
        PruneSpec.from_dict({"sparsity": 0.5, "scorer": scorer})


@pytest.mark.parametrize("field", ["pattern", "recover", "precision", "scope", "structures"])
@pytest.mark.parametrize("value", [["structured"], {}, 7])
def test_a_choice_that_is_no_name_is_refused_naming_what_was_given(field: str, value: Any) -> None:
    with pytest.raises(SpecError, match=re.escape(f"unknown {field} {value!r}; known: ")):
        PruneSpec.from_dict({"sparsity": 0.5, field: value})


@pytest.mark.parametrize("values", [["sparsity"], None, 0.5, "sparsity"])
def test_what_is_no_mapping_is_no_spec(values: Any) -> None:
    with pytest.raises(SpecError, match="a prune spec must be a mapping"):
        PruneSpec.from_dict(values)


def test_keys_that_are_no_names_are_refused_too() -> None:
    keys: dict[Any, Any] = {"sparsity": 0.5, 1: 2, (): 3}
    with pytest.raises(SpecError, match=r"unknown keys in a prune spec: \(\), 1; known: sparsity, pattern"):
        PruneSpec.from_dict(keys)


@pytest.mark.parametrize("field", ["pattern", "recover", "precision", "scope", "structures"])
def test_an_unknown_choice_is_refused_naming_the_known_ones(field: str) -> None:
    choices: dict[str, Any] = {field: "diagonal"}
    with pytest.raises(
        SpecError, match=f"unknown {field} 'diagonal'; known: .*(unstructured|reconstruct|bfloat16|layerwise|sublayers)"
    ):
        PruneSpec(sparsity=0.5, **choices)


@pytest.mark.parametrize("pattern", [Pattern.UNSTRUCTURED, Pattern.TWO_FOUR])
def test_a_scorer_of_structures_alone_is_refused_for_single_weights_but_not_for_the_dense_model(
    pattern: Pattern,
) -> None:
    with pytest.raises(SpecError, match=f"'obs' ranks whole heads and neurons; with pattern='{pattern}' use 'fisher'"):
        PruneSpec(sparsity=0.5, pattern=pattern, scorer="obs")
    assert PruneSpec(sparsity=0.0, pattern=pattern, scorer="obs").scorer == "obs"
    assert PruneSpec(sparsity=0.5, scorer="obs").scorer == "obs"


@pytest.mark.parametrize("sparsity", [0.1, 0.49, 0.51, 0.9])
def test_two_of_four_is_a_half_and_any_other_sparsity_is_refused_with_the_remedy(sparsity: float) -> None:
    assert TWO_FOUR_SPARSITY == 0.5
    with pytest.raises(SpecError, match=rf"pattern='2:4' .* got sparsity={sparsity}: use 0\.5, .*unstructured"):
        PruneSpec(sparsity=sparsity, pattern=Pattern.TWO_FOUR)


@pytest.mark.parametrize(
    ("pattern", "scope", "remedy"),
    [
        ("structured", "row", "leave it out, or scope='layerwise', or scope='latency', or pattern='unstructured'"),
        ("structured", "global", "leave it out, or scope='layerwise', or scope='latency', or pattern='unstructured'"),
        ("2:4", "layerwise", "leave it out, or pattern='unstructured'"),
        (
            "unstructured",
            "latency",
            "leave it out, or scope='global', or scope='layerwise', or scope='row', or pattern='structured'",
        ),
    ],
)
def test_a_scope_that_does_not_go_with_the_pattern_is_refused(pattern: str, scope: str, remedy: str) -> None:
    with pytest.raises(SpecError, match=f"scope='{scope}' does not go with pattern='{pattern}': {remedy}"):
        PruneSpec.from_dict({"sparsity": 0.5, "pattern": pattern, "scope": scope})


def test_a_scope_is_told_only_where_it_was_asked_for() -> None:
    plain = PruneSpec(sparsity=0.5, pattern=Pattern.UNSTRUCTURED)
    by_row = PruneSpec.from_dict(plain.as_dict() | {"scope": "row"})
    assert "scope" not in plain.as_dict()
    assert by_row.as_dict() == plain.as_dict() | {"scope": "row"}
    assert (way_of(plain.as_dict()), way_of(by_row.as_dict())) == (
        "fisher, unstructured, none",
        "fisher, unstructured, none, row",
    )


def test_structures_are_told_only_where_they_are_not_heads_and_neurons() -> None:
    plain = PruneSpec(sparsity=0.5)
    inside = PruneSpec.from_dict(plain.as_dict() | {"structures": "heads+units+neurons"})
    assert PruneSpec.from_dict(plain.as_dict() | {"structures": None}) == plain
    assert inside.as_dict() == plain.as_dict() | {"structures": "heads+units+neurons"}
    assert (way_of(plain.as_dict()), way_of(inside.as_dict())) == (
        "fisher, structured, reconstruct",
        "fisher, structured, reconstruct, heads+units+neurons",
    )


@pytest.mark.parametrize("rounds", [0, -1, 17, 2.0, 4.5, True, "4", None, [4]])
def test_rounds_are_a_whole_number_of_at_least_one(rounds: Any) -> None:
    with pytest.raises(SpecError, match=re.escape(f"rounds must be a whole number from 1 to 16; got {rounds!r}")):
        PruneSpec(sparsity=0.5, rounds=rounds)


def test_rounds_are_refused_where_all_goes_at_once() -> None:
    with pytest.raises(SpecError, match=r"removes all that it removes at once, and rounds=4 .* leave it out"):
        PruneSpec(sparsity=0.5, pattern=Pattern.TWO_FOUR, rounds=4)


@pytest.mark.parametrize("structures", [Structures.UNITS, Structures.SUBLAYERS])
def test_rounds_are_refused_where_other_structures_than_heads_and_neurons_go(structures: Structures) -> None:
    words = f"rounds=4 .* structures={structures.value!r} go at once".replace("+", r"\+")
    with pytest.raises(SpecError, match=words):
        PruneSpec(sparsity=0.5, structures=structures, rounds=4)


@pytest.mark.parametrize(
    ("other", "words"), [({"scope": "layerwise"}, "scope='layerwise'"), ({"scorer": "imported"}, "scorer='imported'")]
)
def test_even_and_imported_cuts_are_of_heads_and_neurons(other: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=f"{words} goes with whole heads and neurons; got structures='sublayers'"):
        PruneSpec.from_dict({"sparsity": 0.5, "structures": "sublayers", **other})


def test_rounds_are_told_only_where_there_are_several() -> None:
    plain = PruneSpec(sparsity=0.5)
    four = PruneSpec.from_dict(plain.as_dict() | {"rounds": 4})
    assert "rounds" not in plain.as_dict()
    assert four.as_dict() == plain.as_dict() | {"rounds": 4}
    assert way_of(four.as_dict()) == "fisher, structured, reconstruct, 4 rounds"


@pytest.mark.parametrize(
    ("pattern", "usual"),
    [
        (Pattern.STRUCTURED, Recover.RECONSTRUCT),
        (Pattern.UNSTRUCTURED, Recover.NONE),
        (Pattern.TWO_FOUR, Recover.NONE),
    ],
)
def test_recovery_left_open_becomes_the_usual_one_of_the_pattern(pattern: Pattern, usual: Recover) -> None:
    assert PruneSpec(sparsity=0.5, pattern=pattern).recover is usual


def test_plain_strings_and_enum_members_build_equal_specs() -> None:
    plain: dict[str, Any] = {"pattern": "structured", "recover": "none"}
    assert PruneSpec(sparsity=0.5, **plain) == PruneSpec(sparsity=0.5, pattern=Pattern.STRUCTURED, recover=Recover.NONE)


def test_every_way_to_write_zero_is_one_spec() -> None:
    written = {str(PruneSpec(sparsity=zero).as_dict()) for zero in (0, 0.0, -0.0)}
    assert written == {str(PruneSpec(sparsity=0.0).as_dict())}


@given(spec=specs)
def test_a_spec_survives_its_dictionary(spec: PruneSpec) -> None:
    assert PruneSpec.from_dict(spec.as_dict()) == spec


def test_an_unknown_key_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="unknown keys in a prune spec: sparcity"):
        PruneSpec.from_dict({"sparsity": 0.5, "sparcity": 0.6})


def test_a_dictionary_without_sparsity_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="sparsity"):
        PruneSpec.from_dict({"scorer": "fisher"})


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PruneSpec(sparsity=0.5).sparsity = 0.6  # type: ignore[misc]


@pytest.mark.parametrize(
    ("pattern", "begins_with"),
    [("structured", Recover.SEQUENTIAL), ("unstructured", Recover.NONE), ("2:4", Recover.NONE)],
)
def test_training_begins_with_the_best_that_a_pattern_has_without_it(pattern: str, begins_with: Recover) -> None:
    spec = PruneSpec.from_dict(
        {"sparsity": 0.5, "pattern": pattern, "scorer": "taylor", "recover": "distill", "precision": "bfloat16"}
    )
    start = spec.before_training()
    assert (start.recover, start.precision) == (begins_with, Precision.FLOAT32)
    assert (start.sparsity, start.pattern, start.scorer) == (0.5, spec.pattern, "taylor")
