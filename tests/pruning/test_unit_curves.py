"""The path from all of a layer's attention to nothing, and the masks that follow it."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pruning.cost import HeadDims, Shape
from pruning.curves import cost_curves, least_first
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.masks.attention_curve import AttentionCurve, AttentionSize
from pruning.masks.structures import TOLERANCE, Curve, Kind, StructureMask, structure_mask
from pruning.masks.units import UnitMask, unit_step
from pruning.reconstruction import least_squares, output_error
from pruning.scores import Fisher, UnitScores, unit_scores
from pruning.slim.bert import Site
from pruning.spec import Structures
from pruning.unit_curves import attention_curves
from pruning.unit_pass import symmetric_root
from pruning.workbench import Workbench

SHAPE = Shape(
    hidden=16, num_layers=1, num_heads=2, head_dim=8, ffn=4, vocabulary=5, positions=6, token_types=2, labels=2
)


def curves_of(bench: Workbench, *, effect: float = 1.0) -> list[AttentionCurve]:
    """Return the paths by Fisher scores, were the effect of every lost QK unit ``effect`` times as large."""
    statistics = bench.unit_statistics()
    statistics = replace(statistics, effects_LNHH=effect * statistics.effects_LNHH)
    units = unit_scores(Fisher(), bench.base, bench.calibration, statistics)
    return attention_curves(bench.base, bench.calibration, statistics, head_orders(bench), units)


def head_orders(bench: Workbench) -> list[Tensor]:
    return [least_first(heads_N) for heads_N in Fisher().structures(bench.base, bench.calibration).heads_LN]


@pytest.fixture(scope="module")
def all_curves(
    base: BaseModel,
    train: LabelledSet,
    judged: LabelledSet,
    calibrated_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Sequence[Curve]:
    root = tmp_path_factory.mktemp("curves") / "store"
    shutil.copytree(calibrated_root, root)
    return Workbench(base, train, judged, root).curves(Fisher(), structures=Structures.UNITS)


def test_the_path_leads_from_all_to_nothing_by_a_head_or_a_step_of_units_at_a_time(bench: Workbench) -> None:
    shape, curves = bench.base.shape, curves_of(bench)
    step = unit_step(shape.head_dim)
    assert [curve.layer for curve in curves] == [0, 1]
    for curve in curves:
        assert (curve.sizes[0], curve.sizes[-1].heads) == ((shape.num_heads, shape.whole), 0)
        assert len(curve.costs) == len(curve.sizes) and curve.costs[0] == 0.0
        assert list(curve.costs) == sorted(curve.costs)
        for before, after in pairwise(curve.sizes):
            gone = (before.heads - after.heads, before.dims.qk - after.dims.qk, before.dims.vo - after.dims.vo)
            assert gone in ((1, 0, 0), (0, step, 0), (0, 0, step))
            assert min(after.dims) > 0


def test_the_order_and_the_cost_of_nothing_left_are_those_of_heads_alone(bench: Workbench) -> None:
    scores = Fisher().structures(bench.base, bench.calibration)
    heads = [curve for curve in cost_curves(bench.base, bench.calibration, scores) if curve.kind is Kind.HEAD]
    for mine, theirs in zip(curves_of(bench), heads, strict=True):
        assert torch.equal(mine.head_order, theirs.order)
        assert mine.costs[-1] == pytest.approx(theirs.costs[-1], rel=1e-5)


def test_a_cost_is_the_error_of_the_output_and_of_the_scores_of_every_head_that_is_left(bench: Workbench) -> None:
    base, calibration, statistics = bench.base, bench.calibration, bench.unit_statistics()
    dim, heads = base.shape.head_dim, base.shape.num_heads
    for curve in curves_of(bench):
        weight = base.tensors[f"layers.{curve.layer}.attention_output.weight"]
        gram = calibration.grams[curve.layer, Site.ATTENTION] / calibration.tokens_L[curve.layer]
        errors = []
        for size in curve.sizes[:-1]:
            left = curve.head_order[heads - size.heads :].sort().values
            kept = torch.cat(
                [head * dim + curve.vo_order_NH[head, dim - size.dims.vo :].sort().values for head in left]
            )
            error = output_error(weight, least_squares(weight, gram, kept), gram, kept)
            for head in left:
                qk = curve.qk_order_NH[head, dim - size.dims.qk :].sort().values
                root = symmetric_root(statistics.effects_LNHH[curve.layer, head])
                queries = statistics.query_grams_LNHH[curve.layer, head]
                error += output_error(root, least_squares(root, queries, qk), queries, qk)
            errors.append(float(error * calibration.sensitivity[curve.layer, Site.ATTENTION] ** 0.5))
        assert curve.costs[:-1] == pytest.approx(list(accumulate(errors, max)), rel=1e-3, abs=1e-9)


def test_units_that_change_nothing_go_first_and_those_that_change_much_never(bench: Workbench) -> None:
    for curve in curves_of(bench, effect=0.0):
        assert [size.dims.qk for size in curve.sizes[:4]] == [8, 6, 4, 2]
        assert curve.costs[3] == 0.0
    for curve in curves_of(bench, effect=1e6):
        assert {size.dims.qk for size in curve.sizes} == {bench.base.shape.head_dim}


def test_the_least_important_units_of_each_head_go_and_of_equals_the_higher(bench: Workbench) -> None:
    shape = bench.base.shape
    ranks_LNH = torch.arange(shape.head_dim).float().expand(shape.num_layers, shape.num_heads, -1)
    units = UnitScores(qk_LNH=ranks_LNH, vo_LNH=torch.ones_like(ranks_LNH))
    for curve in attention_curves(bench.base, bench.calibration, bench.unit_statistics(), head_orders(bench), units):
        assert curve.qk_order_NH.tolist() == [list(range(shape.head_dim))] * shape.num_heads
        assert curve.vo_order_NH.tolist() == [list(reversed(range(shape.head_dim)))] * shape.num_heads


def test_a_curve_takes_from_a_mask_what_is_gone_after_its_steps() -> None:
    sizes = [AttentionSize(heads, HeadDims(qk, 8)) for heads, qk in ((2, 8), (1, 8), (1, 4), (0, 4))]
    units = torch.arange(8).repeat(2, 1)
    curve = AttentionCurve(0, torch.tensor([1, 0]), units, units, tuple(sizes), (0.0, 1.0, 2.0, 9.0))
    mask = StructureMask(torch.ones(1, 2) > 0, torch.ones(1, 4) > 0, UnitMask.whole(SHAPE))
    curve.remove(2, mask)
    assert mask.kept_heads(0).tolist() == [0]
    assert mask.head_dims(SHAPE) == [HeadDims(4, 8)]
    queries, values = mask.kept_dims(0, 8)
    assert (queries.tolist(), values.tolist()) == ([4, 5, 6, 7], list(range(8)))
    assert [curve.weights_after(steps, SHAPE) for steps in range(4)] == [0, 512, 512 + 128, 1024]


@given(sparsity=st.floats(0.0, 0.9))
def test_all_kept_heads_of_a_layer_have_as_many_units_and_the_budget_is_met(
    base: BaseModel, all_curves: Sequence[Curve], sparsity: float
) -> None:
    mask = structure_mask(all_curves, base.shape, sparsity)
    assert abs(mask.sparsity(base.shape) - sparsity) <= TOLERANCE + 1e-9
    assert mask.units is not None
    for layer, dims in enumerate(mask.head_dims(base.shape)):
        heads = mask.kept_heads(layer).tolist()
        assert all(mask.units.dims_of_head(layer, head) == dims for head in heads)
        queries, values = mask.kept_dims(layer, base.shape.head_dim)
        assert (len(queries), len(values)) == (len(heads) * dims.qk, len(heads) * dims.vo)


@pytest.mark.parametrize(("head_dim", "step"), [(1, 1), (3, 1), (8, 2), (26, 6), (32, 8), (64, 8), (128, 8)])
def test_units_go_by_a_quarter_of_a_head_or_eight(head_dim: int, step: int) -> None:
    assert unit_step(head_dim) == step
