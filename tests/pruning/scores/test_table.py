from typing import Any

import pytest
import torch

from pruning.errors import SpecError
from pruning.scores import SCORERS, scorer_named
from pruning.spec import STRUCTURES_ALONE
from pruning.workbench import Workbench


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_is_found_under_its_own_name(name: str) -> None:
    assert scorer_named(name).name == name


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_gives_one_finite_score_to_every_structure(bench: Workbench, name: str) -> None:
    scores = bench.structure_scores(scorer_named(name))
    assert tuple(scores.heads_LN.shape) == (2, 4)
    assert tuple(scores.neurons_LF.shape) == (2, 64)
    assert torch.isfinite(scores.heads_LN).all()
    assert torch.isfinite(scores.neurons_LF).all()


@pytest.mark.parametrize("name", sorted(set(SCORERS) - STRUCTURES_ALONE))
def test_every_other_scorer_gives_one_finite_score_to_every_prunable_weight(bench: Workbench, name: str) -> None:
    scores = bench.weight_scores(scorer_named(name))
    shapes = {tensor: weight.shape for tensor, weight in bench.base.prunable_weights().items()}
    assert {tensor: part.shape for tensor, part in scores.items()} == shapes
    assert all(torch.isfinite(part).all() for part in scores.values())


@pytest.mark.parametrize("name", sorted(STRUCTURES_ALONE))
def test_scorers_of_structures_alone_refuse_single_weights(bench: Workbench, name: str) -> None:
    with pytest.raises(SpecError, match="ranks whole heads and neurons"):
        bench.weight_scores(scorer_named(name))


def test_an_unknown_scorer_is_refused_naming_the_known_ones() -> None:
    with pytest.raises(SpecError, match=r"unknown scorer 'fischer'; known: .*fisher.*magnitude.*taylor"):
        scorer_named("fischer")


@pytest.mark.parametrize("name", [["fisher"], {}, None])
def test_what_is_no_name_is_an_unknown_scorer(name: Any) -> None:
    with pytest.raises(SpecError, match=r"unknown scorer .*; known: .*fisher"):
        scorer_named(name)
