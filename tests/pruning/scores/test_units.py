"""What a unit inside a head is worth, by every scorer."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.reconstruction import damping, least_squares, output_error
from pruning.scores import SCORERS, Grain, Obs, Streamed, UnitScores, unit_scores
from pruning.scores.fisher_block import removal_ranks
from pruning.scores.units import UnitScorer, lifted_units
from pruning.slim.bert import Site
from pruning.unit_pass import symmetric_root
from tests.pruning.parts import random_calibration, random_statistics, scored, with_sums


def scores_by(base: BaseModel, name: str) -> UnitScores:
    return unit_scores(SCORERS[name], base, random_calibration(base), random_statistics(base.shape))


def both(base: BaseModel) -> tuple[Tensor, Tensor]:
    statistics = random_statistics(base.shape)
    return statistics.qk_gradients_MLNH, statistics.vo_gradients_MLNH


@pytest.mark.parametrize(
    ("name", "formula"),
    [("fisher", lambda g: g.square().mean(0)), ("taylor", lambda g: g.mean(0).abs())],
)
def test_mask_gradients_score_units_as_they_score_heads(base: BaseModel, name: str, formula) -> None:  # type: ignore[no-untyped-def]
    scores = scores_by(base, name)
    for found, gradients in zip((scores.qk_LNH, scores.vo_LNH), both(base), strict=True):
        torch.testing.assert_close(found, formula(gradients))


def test_michel_makes_all_layers_equal(base: BaseModel) -> None:
    scores = scores_by(base, "michel")
    for found, gradients in zip((scores.qk_LNH, scores.vo_LNH), both(base), strict=True):
        torch.testing.assert_close(found.flatten(1).square().sum(1), torch.ones(2))
        ratio = found[1] / gradients.abs().mean(0)[1]
        torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))


def test_blocks_rank_the_units_of_each_head_apart(base: BaseModel) -> None:
    scores = scores_by(base, "fisher_block")
    qk_MLNH, _ = both(base)
    assert torch.equal(scores.qk_LNH[1, 2], removal_ranks(qk_MLNH[:, 1, 2]))
    assert scores.vo_LNH[0, 3].sort().values.tolist() == [(rank + 1) / 8 for rank in range(8)]


def test_scores_of_single_weights_are_lifted_by_their_mean_over_what_a_unit_owns(base: BaseModel) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.rand(weight.shape, generator=generator) for name, weight in base.prunable_weights().items()}
    query, key, value, output = (
        weights[f"layers.1.{slot}.weight"] for slot in ("query", "key", "value", "attention_output")
    )
    lifted = lifted_units(base.shape, weights)
    torch.testing.assert_close(lifted.qk_LNH[1, 2, 3], torch.cat([query[19], key[19]]).mean())
    torch.testing.assert_close(lifted.vo_LNH[1, 2, 3], torch.cat([value[19], output[:, 19]]).mean())


@pytest.mark.parametrize("name", sorted(name for name, one in SCORERS.items() if not isinstance(one, UnitScorer)))
def test_every_other_scorer_is_lifted(base: BaseModel, train: LabelledSet, name: str) -> None:
    scorer, calibration = SCORERS[name], random_calibration(base)
    if isinstance(scorer, Streamed):
        calibration = with_sums(calibration, scored(base, train.subset(range(8)), scorer))
    scores = unit_scores(scorer, base, calibration, random_statistics(base.shape))
    expected = lifted_units(base.shape, scorer.weights(base, calibration))
    assert torch.equal(scores.qk_LNH, expected.qk_LNH) and torch.equal(scores.vo_LNH, expected.vo_LNH)
    assert scores.qk_LNH.shape == (2, 4, 8)


def test_grain_scores_its_own_units_times_the_tanh_of_the_share_that_is_left_of_their_head(base: BaseModel) -> None:
    vo_W, qk_W = torch.zeros(2, 32), torch.ones(2, 32)
    vo_W[0, :8], vo_W[0, 8:12], vo_W[1, :20] = 5.0, 4.0, 3.0  # 32 of 64 are left: head 1 keeps a half
    sums = {f"layers.{layer}.{kind}": units[layer] for layer in (0, 1) for kind, units in (("qk", qk_W), ("vo", vo_W))}
    scores = Grain().units(base, with_sums(random_calibration(base), sums), random_statistics(base.shape))
    assert float(scores.vo_LNH[0, 0, 3]) == pytest.approx(5.0 * math.tanh(1 / 0.3), rel=1e-5)
    assert float(scores.vo_LNH[0, 1, 0]) == pytest.approx(4.0 * math.tanh(0.5 / 0.3), rel=1e-5)
    assert float(scores.qk_LNH[0, 1, 7]) == pytest.approx(math.tanh(0.5 / 0.3), rel=1e-5)
    assert not scores.qk_LNH[0, 2:].any()


def test_a_qk_unit_scores_by_obs_the_least_error_once_it_and_all_below_it_are_gone(base: BaseModel) -> None:
    statistics = random_statistics(base.shape)
    scores = Obs().units(base, random_calibration(base), statistics).qk_LNH[1, 2]
    root = symmetric_root(statistics.effects_LNHH[1, 2]).double()
    gram = statistics.query_grams_LNHH[1, 2].double()
    for score in scores.sort().values[:-1]:
        kept = (scores > score).nonzero().flatten()
        solved = least_squares(root, gram, kept)
        change = root.clone()
        change[:, kept] -= solved
        error = output_error(root, solved, gram, kept) + damping(gram) * change.square().sum()
        torch.testing.assert_close(score, error, rtol=1e-5, atol=1e-12)


def test_a_vo_unit_scores_by_obs_as_an_input_of_the_output_projection(base: BaseModel) -> None:
    calibration = random_calibration(base)
    weight = base.tensors["layers.0.attention_output.weight"]
    empty = replace(calibration, grams=calibration.grams | {(0, Site.ATTENTION): torch.diag(torch.arange(32.0))})
    scores = Obs().units(base, empty, random_statistics(base.shape)).vo_LNH[0].flatten()
    assert int(scores.argmin()) == int((weight.double().square().sum(0) * torch.arange(32)).argmin())
