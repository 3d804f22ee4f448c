import math
from dataclasses import fields, replace
from typing import Any

import pytest

from pruning.errors import SpecError
from pruning.recovery.recipe import Criterion, Recipe, criterion_named

USUAL = Recipe(steps=10, minutes=2.0)
OTHERS: dict[str, Any] = {
    "steps": 11, "minutes": 3.0, "batch_rows": 8, "learning_rate": 1e-4, "warm_up": 0.2, "weight_decay": 0.0,
    "temperature": 4.0, "hidden_weight": 0.5, "label_weight": 0.5, "held_out_rows": 7, "check_every": 5, "patience": 3,
    "gradual": 0.4, "gradual_from": 0.1, "criterion": Criterion.PLATON, "cut_every": 7, "quantized": True, "seed": 1,
}  # fmt: skip
BIT_BY_BIT = replace(USUAL, gradual=0.5)


def test_every_value_is_part_of_the_identity() -> None:
    assert {field.name for field in fields(Recipe)} == set(OTHERS)
    digests = {
        replace(USUAL if name == "quantized" else BIT_BY_BIT, **{name: value}).digest_with("rows")
        for name, value in OTHERS.items()
    }
    digests |= {one.digest_with(rows) for one in (USUAL, BIT_BY_BIT) for rows in ("rows", "other rows")}
    assert len(digests) == len(OTHERS) + 4


def test_how_weights_go_is_no_part_of_a_recipe_that_cuts_before_it_trains() -> None:
    assert not {"criterion", "gradual_from", "thinning_version"} & USUAL.as_dict().keys()
    assert BIT_BY_BIT.as_dict()["criterion"] == "mask_gradient"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0), ("steps", 1.5), ("steps", True), ("minutes", 0), ("minutes", math.nan), ("minutes", "8"),
        ("batch_rows", 0), ("learning_rate", 0.0), ("learning_rate", math.inf), ("temperature", -1.0),
        ("weight_decay", -0.1), ("hidden_weight", -1), ("warm_up", 1.1), ("label_weight", -0.1), ("label_weight", 2),
        ("held_out_rows", 0), ("check_every", 0), ("patience", 0), ("gradual", 1.1),
        ("cut_every", 0), ("gradual_from", -0.1),
    ],
)  # fmt: skip
def test_what_cannot_train_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(SpecError, match=rf"{name} must be .*{value!r}"):
        replace(USUAL, **{name: value})


def test_a_run_without_an_end_is_refused() -> None:
    with pytest.raises(SpecError, match="needs an end"):
        Recipe()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gradual": 0.0, "criterion": Criterion.PLATON}, "give gradual above 0"),
        ({"gradual": 0.0, "gradual_from": 0.1}, "give gradual above 0"),
        ({"gradual": 0.4, "gradual_from": 0.4}, "gradual_from must be less than gradual, 0.4; got 0.4"),
    ],
)
def test_what_says_nothing_or_the_impossible_about_gradual_cuts_is_refused(values: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        replace(USUAL, **values)


def test_a_criterion_of_no_known_name_is_refused() -> None:
    assert criterion_named("platon") is Criterion.PLATON
    assert replace(BIT_BY_BIT, criterion="platon").as_dict()["criterion"] == "platon"
    with pytest.raises(SpecError, match="unknown criterion 'movement'; known: mask_gradient, grain"):
        replace(USUAL, criterion="movement")
