"""Laws of every scorer: what a name or a place should not matter to."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pruning.cache import unkept_calibration
from pruning.calibration import Calibration
from pruning.capture import capture
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.scores import SCORERS, Streamed, StructureScores, UnitScores, unit_scores
from pruning.spec import STRUCTURES_ALONE
from pruning.unit_pass import unit_pass
from tests.pruning.parts import random_calibration, scored, with_sums

STREAMED = {name: scorer for name, scorer in SCORERS.items() if isinstance(scorer, Streamed)}
NOISY = {name for name, scorer in STREAMED.items() if scorer.plan.noise is not None}
EXACT = sorted(SCORERS.keys() - NOISY - {"random", "fisher_block"})
"""Not those with noise, which is drawn unit by unit; nor random orders; nor ranks, which rounding can exchange."""
TRAJECTORIES = {"seven", "platon", "grain"}
"""Those that weigh the latest batches most."""


def evidence_of(base: BaseModel, rows: LabelledSet, name: str) -> Calibration:
    captured = capture(base, rows, micro_batch=4, progress=lambda done, total: None)
    calibration = unkept_calibration(random_calibration(base).key, captured)
    if name in STREAMED:
        calibration = with_sums(calibration, scored(base, rows, STREAMED[name]))
    return calibration


def structures_of(base: BaseModel, rows: LabelledSet, name: str) -> StructureScores:
    return SCORERS[name].structures(base, evidence_of(base, rows, name))


def units_of(base: BaseModel, rows: LabelledSet, name: str) -> UnitScores:
    return unit_scores(SCORERS[name], base, evidence_of(base, rows, name), unit_pass(base, rows, micro_batch=4))


def moved(base: BaseModel, layer: int, outer: Tensor, *, heads: bool) -> BaseModel:
    """Return the same model with the dimensions of a layer's heads, or its neurons, in another order."""
    tensors = dict(base.tensors)
    for slot in ("query", "key", "value") if heads else ("ffn_in",):
        for part in ("weight", "bias"):
            tensors[f"layers.{layer}.{slot}.{part}"] = tensors[f"layers.{layer}.{slot}.{part}"][outer]
    slot = "attention_output" if heads else "ffn_out"
    tensors[f"layers.{layer}.{slot}.weight"] = tensors[f"layers.{layer}.{slot}.weight"][:, outer]
    return replace(base, tensors=tensors)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=2e-3, atol=1e-5 * float(other.max()))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("layer", [0, 1])
def test_permuting_neurons_permutes_their_scores(base: BaseModel, train: LabelledSet, name: str, layer: int) -> None:
    order = torch.randperm(base.shape.ffn, generator=torch.Generator().manual_seed(3))
    before, after = (structures_of(model, train, name) for model in (base, moved(base, layer, order, heads=False)))
    same(after.neurons_LF[layer], before.neurons_LF[layer][order])
    same(after.neurons_LF[1 - layer], before.neurons_LF[1 - layer])
    same(after.heads_LN, before.heads_LN)


@pytest.mark.parametrize("name", EXACT)
def test_permuting_heads_permutes_their_scores(base: BaseModel, train: LabelledSet, name: str) -> None:
    heads = torch.tensor([2, 0, 3, 1])
    dims = (heads[:, None] * base.shape.head_dim + torch.arange(base.shape.head_dim)).flatten()
    before, after = (structures_of(model, train, name) for model in (base, moved(base, 0, dims, heads=True)))
    same(after.heads_LN[0], before.heads_LN[0][heads])
    same(after.heads_LN[1], before.heads_LN[1])
    same(after.neurons_LF, before.neurons_LF)


@pytest.mark.parametrize("name", EXACT)
def test_permuting_the_units_of_a_head_permutes_their_scores(base: BaseModel, train: LabelledSet, name: str) -> None:
    inside = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4])
    dims = torch.arange(base.shape.hidden)
    dims[8:16] = 8 + inside  # of the second head
    before, after = (units_of(model, train, name) for model in (base, moved(base, 0, dims, heads=True)))
    for units_before, units_after in ((before.qk_LNH, after.qk_LNH), (before.vo_LNH, after.vo_LNH)):
        same(units_after[0, 1], units_before[0, 1, inside])
        same(units_after[0, [0, 2, 3]], units_before[0, [0, 2, 3]])
        same(units_after[1], units_before[1])


@pytest.mark.parametrize("name", [name for name in EXACT if name not in STRUCTURES_ALONE])
def test_permuting_neurons_permutes_the_scores_of_their_weights(base: BaseModel, train: LabelledSet, name: str) -> None:
    order = torch.randperm(base.shape.ffn, generator=torch.Generator().manual_seed(3))
    before, after = (
        SCORERS[name].weights(model, evidence_of(model, train, name))
        for model in (base, moved(base, 0, order, heads=False))
    )
    same(after["layers.0.ffn_in.weight"], before["layers.0.ffn_in.weight"][order])
    same(after["layers.0.ffn_out.weight"], before["layers.0.ffn_out.weight"][:, order])
    same(after["layers.0.key.weight"], before["layers.0.key.weight"])


@pytest.mark.parametrize("name", sorted(STREAMED.keys() - TRAJECTORIES))
def test_the_order_of_the_batches_does_not_matter(base: BaseModel, train: LabelledSet, name: str) -> None:
    blocks = [list(range(start, start + 8)) for start in range(0, 40, 8)]
    other = train.subset([row for block in (blocks[i] for i in (3, 0, 4, 2, 1)) for row in block])
    one, two = (scored(base, rows, STREAMED[name]) for rows in (train, other))
    for tensor in one:
        same(one[tensor], two[tensor])


@pytest.mark.parametrize("name", sorted(STREAMED))
def test_the_same_rows_give_the_same_scores(base: BaseModel, train: LabelledSet, name: str) -> None:
    one, two = (scored(base, train, STREAMED[name]) for _ in range(2))
    assert all(torch.equal(one[tensor], two[tensor]) for tensor in one)
