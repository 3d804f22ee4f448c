from pathlib import Path

import pytest
import torch

from pruning import curves
from pruning.curves import NEURON_POINTS, SUBLAYERS, cost_curves
from pruning.heads import Head
from pruning.masks.structures import ROUND_TO, Kind
from pruning.reconstruction import least_squares, output_error
from pruning.scores import Fisher, StructureScores
from pruning.workbench import Workbench
from tests.pruning.zoo import write_model, write_task_rows


def test_there_is_one_curve_per_sublayer_that_starts_at_nothing_and_never_falls(bench: Workbench) -> None:
    solved = cost_curves(bench.base, bench.calibration, Fisher().structures(bench.base, bench.calibration))
    assert [(curve.layer, curve.kind) for curve in solved] == [
        (layer, kind) for layer in range(bench.base.shape.num_layers) for kind, _, _ in SUBLAYERS
    ]
    for curve in solved:
        assert curve.costs[0] == 0.0
        assert list(curve.costs) == sorted(curve.costs)
        structures = bench.base.shape.num_heads if curve.kind is Kind.HEAD else bench.base.shape.ffn
        assert len(curve.costs) == -(-structures // curve.step) + 1


def test_a_point_of_a_curve_is_the_weighted_error_of_the_reconstruction(bench: Workbench) -> None:
    base, calibration = bench.base, bench.calibration
    solved = cost_curves(base, calibration, Fisher().structures(base, calibration))
    for curve, (_, site, slot) in zip(solved, SUBLAYERS * base.shape.num_layers, strict=True):
        weight_DW = base.tensors[f"layers.{curve.layer}.{slot}.weight"]
        gram_WW = calibration.grams[curve.layer, site] / calibration.tokens_L[curve.layer]
        structures = curve.order[curve.gone_after(1) :].sort().values
        dims_each = weight_DW.shape[1] // curve.order.numel()
        kept = (structures[:, None] * dims_each + torch.arange(dims_each)).flatten()
        error = output_error(weight_DW, least_squares(weight_DW, gram_WW, kept), gram_WW, kept)
        weight = calibration.sensitivity[curve.layer, site] ** 0.5
        assert curve.costs[1] == pytest.approx(float(weight * error), rel=1e-4, abs=1e-9)


def test_a_cost_never_falls_where_the_error_does() -> None:
    # Two inputs that cancel: the ridge holds up the one that is left, and without both nothing is missed.
    errors = curves._errors(torch.tensor([[1.0, -1.0]]), torch.ones(2, 2), torch.tensor([1, 0]), 1)
    assert errors[0] == 0.0 and 0.0 < errors[1] <= errors[2]


def test_a_curve_follows_the_scores_and_ties_keep_the_lower_index(bench: Workbench) -> None:
    shape = bench.base.shape
    equal = StructureScores(torch.ones(shape.num_layers, shape.num_heads), torch.ones(shape.num_layers, shape.ffn))
    for curve in cost_curves(bench.base, bench.calibration, equal):
        assert curve.order.tolist() == list(reversed(range(curve.order.numel())))
        assert curve.step == (1 if curve.kind is Kind.HEAD else ROUND_TO)


def test_the_last_blocks_of_a_wide_ffn_are_each_weighed(tmp_path: Path) -> None:
    blocks = 2 * NEURON_POINTS
    rows = [write_task_rows(tmp_path / f"{seed}.jsonl", Head.LABEL, 40, seed=seed) for seed in (0, 1)]
    model = write_model(tmp_path / "model", "bert", intermediate_size=blocks * ROUND_TO)
    bench = Workbench.open(model, *rows, tmp_path / "store")
    bench.calibrate()
    for curve in bench.curves(Fisher()):
        if curve.kind is Kind.NEURON:
            first, last = (curve.costs[start + 1] - curve.costs[start] for start in (-1 - blocks // NEURON_POINTS, -2))
            assert last > 1.1 * first  # on a straight line they would be equal
