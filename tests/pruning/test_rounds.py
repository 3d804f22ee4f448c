import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pruning import rounds as module
from pruning.calibration import Calibration
from pruning.cutting import carried_out, mask_of, ranking_of
from pruning.data import LabelledSet
from pruning.encoder import BaseModel, load_base_model
from pruning.errors import CacheError
from pruning.masks.structures import ROUND_TO, CostCurve, Kind, StructureMask, structure_mask
from pruning.masks.weights import mask_sparsity, unstructured_mask
from pruning.pipeline import build_variant, cut
from pruning.rounds import levels_before, mask_in_rounds
from pruning.scores import SCORERS, StructureScores, scorer_named
from pruning.scores.lifting import lifted
from pruning.slim.convert import build_slim, dense_mask, slim_layers, told_apart, zeroed_layers
from pruning.spec import MOST_ROUNDS, Pattern, PruneSpec, Recover, Scope
from pruning.workbench import Workbench
from tests.conftest import write_tiny_model
from tests.pruning.parts import flip_byte, logits_of
from tests.pruning.parts import mask_of as structures

UNSTRUCTURED = Pattern.UNSTRUCTURED
FOUR = PruneSpec(sparsity=0.6, rounds=4)

any_sparsity = st.floats(min_value=0, max_value=1, exclude_max=True)
any_rounds = st.integers(min_value=1, max_value=MOST_ROUNDS)


@pytest.fixture(scope="module")
def deep_root(train: LabelledSet, judged: LabelledSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The calibrated store of a model of four layers, so large that every budget can be met."""
    folder = tmp_path_factory.mktemp("deep")
    base = load_base_model(write_tiny_model(folder / "model", layers=4))
    Workbench(base, train, judged, folder / "store").calibrate()
    return folder


@pytest.fixture
def deep(deep_root: Path, train: LabelledSet, judged: LabelledSet, tmp_path: Path) -> Workbench:
    shutil.copytree(deep_root / "store", tmp_path / "deep")
    return Workbench(load_base_model(deep_root / "model"), train, judged, tmp_path / "deep")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[None]]:
    """Count the passes that rounds take."""
    taken: list[None] = []
    capture = module.capture

    def counted(*arguments: object, **options: object) -> object:
        taken.append(None)
        return capture(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "capture", counted)
    yield taken


def test_a_model_is_scored_anew_whenever_another_nth_has_gone() -> None:
    assert levels_before(0.7, 4) == [0.25, 0.5]
    assert levels_before(0.75, 4) == [0.25, 0.5]
    assert levels_before(0.9, 8) == [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]
    assert levels_before(0.2, 4) == levels_before(0.9, 1) == []


@given(one=any_sparsity, other=any_sparsity, rounds=any_rounds)
def test_a_deeper_cut_goes_through_all_rounds_of_a_shallower_one(one: float, other: float, rounds: int) -> None:
    shallow, deep = sorted((one, other))
    short, long = levels_before(shallow, rounds), levels_before(deep, rounds)
    assert long[: len(short)] == short
    assert len(long) < rounds or rounds == 1


def test_one_round_is_the_cut_as_it_always_was(bench: Workbench) -> None:
    spec = PruneSpec(sparsity=0.6)
    once = mask_of(bench, ranking_of(bench, spec), spec)
    mask = mask_in_rounds(bench, spec)
    assert isinstance(once, StructureMask) and isinstance(mask, StructureMask)
    assert torch.equal(once.heads_LN, mask.heads_LN) and torch.equal(once.neurons_LF, mask.neurons_LF)


@pytest.mark.parametrize("scorer", ["fisher", "obs", "wanda", "fisher_block", "random"])
def test_structures_that_went_stay_gone_and_the_budget_is_met(deep: Workbench, scorer: str) -> None:
    before: StructureMask | None = None
    for sparsity in (0.3, 0.6, 0.9):
        mask = mask_in_rounds(deep, replace(FOUR, scorer=scorer, sparsity=sparsity))
        assert isinstance(mask, StructureMask)
        largest = max(deep.base.shape.head_weights, ROUND_TO * deep.base.shape.neuron_weights)
        assert mask.sparsity(deep.base.shape) == pytest.approx(sparsity, abs=largest / deep.base.shape.prunable_weights)
        if before is not None:
            assert not (mask.heads_LN & ~before.heads_LN).any()
            assert not (mask.neurons_LF & ~before.neurons_LF).any()
        before = mask


@dataclass(frozen=True, slots=True)
class Contrary:
    """The smaller the weights, the more important: what went is what it would keep."""

    name: ClassVar[str] = "contrary"
    version: ClassVar[int] = 1
    scope: ClassVar[Scope] = Scope.GLOBAL

    def weights(self, base: BaseModel, calibration: Calibration) -> Mapping[str, Tensor]:
        return {name: -weight.abs() for name, weight in base.prunable_weights().items()}

    def structures(self, base: BaseModel, calibration: Calibration) -> StructureScores:
        return lifted(base.shape, self.weights(base, calibration))


@pytest.mark.parametrize("pattern", [Pattern.STRUCTURED, UNSTRUCTURED])
def test_what_went_ranks_last_whatever_the_scorer_says_of_it(
    deep: Workbench, monkeypatch: pytest.MonkeyPatch, pattern: Pattern
) -> None:
    monkeypatch.setitem(SCORERS, "contrary", Contrary())
    spec = PruneSpec(sparsity=0.8, scorer="contrary", pattern=pattern, recover=Recover.NONE, rounds=4)
    _, _, achieved = cut(deep, spec)
    assert achieved == pytest.approx(0.8, abs=0.03)


def test_what_went_before_is_what_goes_first_along_a_rounds_curves_at_no_cost(
    deep: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost_curves = module.cost_curves

    def coarse(*given: Any) -> list[CostCurve]:
        return [replace(curve, costs=tuple(cost + 1.0 for cost in curve.costs)) for curve in cost_curves(*given)]

    monkeypatch.setattr(module, "cost_curves", coarse)
    monkeypatch.setitem(SCORERS, "contrary", Contrary())
    mask = structures(deep.base.shape, [[0, 2], [3], [], range(4)], [range(16, 64), range(64), [], range(32)])
    spec = PruneSpec(sparsity=0.5, scorer="contrary", recover=Recover.NONE, rounds=2)
    for curve in module._ranked_anew(deep, spec, mask, lambda done, total: None, lambda: None):
        assert isinstance(curve, CostCurve)
        kept = mask.heads_LN if curve.kind is Kind.HEAD else mask.neurons_LF
        gone = (~kept[curve.layer]).nonzero().flatten().tolist()
        assert sorted(curve.order[: len(gone)].tolist()) == gone
        free = [cost for steps, cost in enumerate(curve.costs) if curve.gone_after(steps) <= len(gone)]
        assert free == [0.0] * len(free) and min((*curve.costs[len(free) :], 1.0)) >= 1.0


def test_along_a_rounds_curve_what_went_before_costs_nothing(base: BaseModel) -> None:
    curve = CostCurve(layer=1, kind=Kind.NEURON, order=torch.arange(64), step=16, costs=(0.0, 1.0, 2.0, 3.0, 4.0))
    for kept, costs in ((64, (0, 1, 2, 3, 4)), (48, (0, 0, 2, 3, 4)), (16, (0, 0, 0, 0, 4)), (0, (0, 0, 0, 0, 0))):
        mask = structures(base.shape, [range(4)] * 2, [range(64), range(kept)])
        assert module._free_until(curve, mask).costs == costs


@pytest.mark.parametrize("scorer", ["fisher", "platon", "magnitude", "random"])
def test_single_weights_that_went_stay_gone_and_the_count_is_exact(bench: Workbench, scorer: str) -> None:
    spec = PruneSpec(sparsity=0.4, pattern=UNSTRUCTURED, scorer=scorer, rounds=4)
    shallow, deep = mask_in_rounds(bench, spec), mask_in_rounds(bench, replace(spec, sparsity=0.7))
    assert not isinstance(shallow, StructureMask) and not isinstance(deep, StructureMask)
    assert not any((kept & ~shallow[name]).any() for name, kept in deep.items())
    size = bench.base.shape.prunable_weights
    assert sum(int(kept.sum()) for kept in deep.values()) == round((1 - 0.7) * size)
    assert mask_sparsity(shallow) == pytest.approx(0.4, abs=1 / size)


@pytest.mark.parametrize("recover", [Recover.NONE, Recover.RECONSTRUCT])
def test_each_round_goes_by_the_scores_of_the_model_that_the_last_one_left(
    bench: Workbench, tmp_path: Path, recover: Recover
) -> None:
    spec = PruneSpec(sparsity=0.6, pattern=UNSTRUCTURED, recover=recover, rounds=2)
    first = unstructured_mask(bench.weight_scores(scorer_named("fisher")), 0.5)
    layers, _, _ = carried_out(bench, first, replace(spec, sparsity=0.5))
    tensors = dict(bench.base.tensors)
    for name, tensor in layers.items():
        tensors |= told_apart(name, tensor)
    other = Workbench(
        replace(bench.base, tensors=tensors, weights_digest="cut"), bench.train, bench.evaluation, tmp_path / "other"
    )
    other.calibrate()
    scores = other.weight_scores(scorer_named("fisher"))
    left = {name: score.masked_fill(~first[name], -1.0) for name, score in scores.items()}
    expected = unstructured_mask(left, 0.6)
    mask = mask_in_rounds(bench, spec)
    assert not isinstance(mask, StructureMask)
    assert all(torch.equal(mask[name], kept) for name, kept in expected.items())


def test_a_round_of_structures_goes_by_the_curves_of_the_model_that_the_last_one_left(
    deep: Workbench, tmp_path: Path
) -> None:
    spec, fisher = replace(FOUR, rounds=2), scorer_named("fisher")
    first = mask_in_rounds(deep, replace(spec, sparsity=0.5))
    assert isinstance(first, StructureMask)
    layers, _, _ = carried_out(deep, first, replace(spec, sparsity=0.5))
    tensors = deep.base.tensors | module._full_size(deep.base, layers, first)
    other = replace(deep.base, tensors=tensors, weights_digest="cut")
    bench = Workbench(other, deep.train, deep.evaluation, tmp_path / "other")
    bench.calibrate()
    # Of so small a model every step is solved: what went, without weights and inputs, costs nothing by itself.
    expected = structure_mask(bench.curves(fisher), deep.base.shape, 0.6)
    mask = mask_in_rounds(deep, spec)
    assert isinstance(mask, StructureMask)
    assert torch.equal(mask.heads_LN, expected.heads_LN & first.heads_LN)
    assert torch.equal(mask.neurons_LF, expected.neurons_LF & first.neurons_LF)


def test_at_full_size_a_cut_answers_as_the_slim_model_does(bench: Workbench) -> None:
    mask = structures(bench.base.shape, [[0, 2], []], [range(0, 64, 2), range(16)])
    layers, _, _ = carried_out(bench, mask, PruneSpec(sparsity=0.5))
    wide = replace(bench.base, tensors=bench.base.tensors | module._full_size(bench.base, layers, mask))
    dense = build_slim(wide, slim_layers(wide, dense_mask(wide.shape)))
    torch.testing.assert_close(
        logits_of(dense, bench.train.sequences),
        logits_of(build_slim(bench.base, layers), bench.train.sequences),
        rtol=1e-4,
        atol=1e-5,
    )


def test_at_full_size_zeroed_weights_are_as_they_were(bench: Workbench) -> None:
    mask = unstructured_mask(bench.weight_scores(scorer_named("fisher")), 0.5)
    wide = module._full_size(bench.base, zeroed_layers(bench.base, mask), mask)
    for name, tensor in bench.base.tensors.items():
        if name in wide:
            assert torch.equal(wide[name], tensor * mask[name] if name in mask else tensor)


def test_a_ladder_shares_its_rounds_and_a_second_cut_reads_them(deep: Workbench, passes: list[None]) -> None:
    for sparsity, in_all in ((0.6, 2), (0.7, 2), (0.9, 3), (0.6, 3)):
        mask_in_rounds(deep, replace(FOUR, sparsity=sparsity))
        assert len(passes) == in_all
    mask_in_rounds(Workbench(deep.base, deep.train, deep.evaluation, deep.root), replace(FOUR, sparsity=0.9))
    assert len(passes) == 3


@pytest.mark.parametrize(
    "other",
    [
        replace(FOUR, scorer="taylor"),
        replace(FOUR, recover=Recover.NONE),
        replace(FOUR, rounds=2),
        replace(FOUR, pattern=UNSTRUCTURED, recover=None),
    ],
    ids=str,
)
def test_rounds_of_another_way_to_cut_are_not_shared(deep: Workbench, passes: list[None], other: PruneSpec) -> None:
    mask_in_rounds(deep, FOUR)
    before = len(passes)
    mask_in_rounds(deep, other)
    assert len(passes) > before


def test_another_precision_shares_the_rounds(deep: Workbench, passes: list[None]) -> None:
    cut(deep, FOUR)
    cut(deep, PruneSpec(sparsity=0.6, rounds=4, precision="bfloat16"))  # type: ignore[arg-type]
    assert len(passes) == 2


def test_a_scorer_with_a_pass_of_its_own_takes_it_in_every_round(
    deep: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[None] = []
    weight_pass = module.weight_pass

    def counted(*arguments: object, **options: object) -> object:
        taken.append(None)
        return weight_pass(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "weight_pass", counted)
    mask_in_rounds(deep, replace(FOUR, scorer="wanda"))
    assert len(taken) == 2


def test_only_rankings_are_kept(deep: Workbench) -> None:
    calibrations = sorted((deep.root / "calibration").iterdir())
    mask_in_rounds(deep, FOUR)
    assert sorted((deep.root / "calibration").iterdir()) == calibrations
    assert len(list((deep.root / "curves").iterdir())) == 3
    assert not (deep.root / "scores").exists()


def test_a_damaged_round_is_refused_and_never_made_again_silently(deep: Workbench) -> None:
    mask_in_rounds(deep, FOUR)
    for path in (deep.root / "curves").iterdir():
        flip_byte(path, 40)
    again = Workbench(deep.base, deep.train, deep.evaluation, deep.root)
    with pytest.raises(CacheError, match="delete it, and the next cut solves it again"):
        mask_in_rounds(again, FOUR)


def test_every_batch_of_every_round_is_told_and_breathed_after(deep: Workbench) -> None:
    rows: list[tuple[int, int]] = []
    breaths: list[None] = []
    mask_in_rounds(deep, FOUR, lambda done, total: rows.append((done, total)), lambda: breaths.append(None))
    assert rows == [(32, 40), (40, 40)] * 2
    assert len(breaths) == 4


def test_a_variant_in_rounds_is_built_like_any_other(deep: Workbench) -> None:
    manifest = build_variant(deep, replace(FOUR, recover=Recover.SEQUENTIAL))
    assert manifest.spec.as_dict()["rounds"] == 4
    assert deep.store.manifest(manifest.variant_id).spec == manifest.spec
    assert manifest.achieved_sparsity == pytest.approx(0.6, abs=0.02)
