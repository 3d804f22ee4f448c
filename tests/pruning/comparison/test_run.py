from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pruning.comparison.run as module
from pruning.cache import CalibrationCache
from pruning.comparison.report import report_of
from pruning.comparison.request import Comparison
from pruning.comparison.run import Outcome, compare
from pruning.cutting import ranking_of
from pruning.errors import RecoveryError, StoreError
from pruning.evaluation import evaluate
from pruning.heads import Head
from pruning.material import Material
from pruning.pipeline import build_variant
from pruning.recovery.distillation import recover
from pruning.recovery.recipe import Recipe
from pruning.recovery.student import Student
from pruning.spec import Pattern, PruneSpec, Scope
from pruning.workbench import Workbench
from tests.pruning.zoo import write_model, write_task_rows

RECIPE = Recipe(steps=2, check_every=1, batch_rows=8)


def plain(outcome: Outcome) -> list[dict[str, Any]]:
    return [cell.as_dict() for cell in outcome.cells]


@pytest.fixture(scope="module")
def whole(material: Material, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A store, and the comparison that was made in one go in it."""
    root = tmp_path_factory.mktemp("whole")
    return root, compare(material, root, Comparison(scorers=("fisher", "wanda"), levels=(0.3, 0.6), seeds=2))


def test_cells_come_seed_by_seed_scorer_by_scorer_level_by_level(whole: tuple[Path, Outcome]) -> None:
    order = [(cell.seed, cell.spec.scorer, cell.spec.sparsity) for cell in whole[1].cells]
    assert order == [(seed, scorer, level) for seed in (0, 1) for scorer in ("fisher", "wanda") for level in (0.3, 0.6)]
    assert whole[1].computed == 8
    assert whole[1].calibration_rows == 32


def test_an_interrupted_run_goes_on_where_it_stopped_and_ends_the_same(
    material: Material,
    comparison: Comparison,
    whole: tuple[Path, Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged = 0

    def interrupted(*given: Any) -> Any:
        nonlocal judged
        judged += 1
        if judged == 4:
            raise KeyboardInterrupt
        return evaluate(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "evaluate", interrupted)
        compare(material, tmp_path, comparison)
    resumed = compare(material, tmp_path, comparison)
    assert resumed.computed == 8 - 3
    assert plain(resumed) == plain(whole[1])
    assert resumed.dense == whole[1].dense


def test_a_second_run_computes_nothing(
    material: Material, comparison: Comparison, whole: tuple[Path, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("computed again")

    for name in ("ranking_of", "judged_logits"):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(CalibrationCache, "get", refuse)
    again = compare(material, whole[0], comparison)
    assert (again.computed, again.spent.calibration_seconds, dict(again.spent.scoring_seconds)) == (0, [], {})
    assert plain(again) == plain(whole[1])


def test_a_wider_comparison_computes_only_what_is_new(
    material: Material, comparison: Comparison, whole: tuple[Path, Outcome]
) -> None:
    wider = compare(material, whole[0], replace(comparison, scorers=("fisher", "random", "wanda")))
    assert wider.computed == 4
    assert set(wider.spent.scoring_seconds) == {"random"}
    assert wider.spent.calibration_seconds == []


def test_seeds_draw_other_rows_even_of_a_small_set(material: Material, whole: tuple[Path, Outcome]) -> None:
    draws = [Workbench.drawn(material, whole[0], seed=seed, size=32) for seed in (0, 1)]
    assert draws[0].train.digest != draws[1].train.digest
    assert {len(bench.train) for bench in draws} == {32}
    kept = {seed: [cell.as_dict()["kept"] for cell in whole[1].cells if cell.seed == seed] for seed in (0, 1)}
    assert kept[0] != kept[1]


def test_a_cell_is_worth_what_the_variant_of_its_spec_is(material: Material, whole: tuple[Path, Outcome]) -> None:
    bench = Workbench.drawn(material, whole[0], seed=1, size=32)
    manifest = build_variant(bench, PruneSpec(sparsity=0.6, scorer="wanda"))
    (cell,) = [cell for cell in whole[1].cells if (cell.seed, cell.spec) == (1, manifest.spec)]
    assert (cell.worth.value, cell.worth.agreement) == (manifest.evaluation.accuracy, manifest.evaluation.agreement)
    assert (cell.worth.low, cell.worth.high) == (manifest.evaluation.accuracy_low, manifest.evaluation.accuracy_high)
    assert (cell.achieved_sparsity, cell.macs) == (manifest.achieved_sparsity, manifest.cost.macs)
    shape = material.base.shape
    assert [part.kept for part in cell.kept if part.size == shape.ffn] == manifest.neurons


def test_no_cut_is_stored_as_a_variant(material: Material, comparison: Comparison, tmp_path: Path) -> None:
    compare(material, tmp_path, replace(comparison, seeds=1))
    assert not (tmp_path / "variants").exists()
    assert len(list((tmp_path / "comparisons").iterdir())) == 4


@pytest.mark.parametrize(("pattern", "levels"), [("unstructured", (0.5, 0.8)), ("2:4", (0.5,))])
def test_single_weights_are_compared_too(
    material: Material, tmp_path: Path, pattern: str, levels: tuple[float, ...]
) -> None:
    wish = Comparison(scorers=("magnitude", "wanda"), levels=levels, seeds=1, pattern=pattern)  # type: ignore[arg-type]
    first = compare(material, tmp_path, wish)
    assert [cell.achieved_sparsity for cell in first.cells] == pytest.approx([*levels, *levels], abs=0.01)
    assert plain(compare(material, tmp_path, wish)) == plain(first)


@pytest.mark.parametrize("structures", ["heads+units+neurons", "sublayers"])
def test_other_structures_are_compared_too(material: Material, tmp_path: Path, structures: str) -> None:
    wish = Comparison(scorers=("fisher", "magnitude"), levels=(0.5,), seeds=1, structures=structures)  # type: ignore[arg-type]
    seen: list[tuple[int, int]] = []
    first = compare(material, tmp_path, wish, lambda what, done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert [cell.spec.structures for cell in first.cells] == [structures] * 2
    assert plain(compare(material, tmp_path, wish)) == plain(first)
    bench = Workbench.drawn(material, tmp_path, size=32)
    assert first.cells[0].macs == build_variant(bench, first.cells[0].spec).cost.macs
    report = report_of(first, material.base.shape)
    assert report["structures"] == structures
    assert (report["rows"][0]["heads"] is None) is (structures == "heads+units+neurons")
    assert all(len(row["neurons"]) == material.base.shape.num_layers for row in report["rows"])


@pytest.mark.parametrize(("kind", "head"), [("distilbert", Head.TAGS), ("roberta", Head.SCORE)])
def test_every_task_is_compared_by_its_own_metric(tmp_path: Path, kind: str, head: Head) -> None:
    rows = [write_task_rows(tmp_path / f"{seed}.jsonl", head, 20, seed=seed) for seed in (0, 1)]
    material = Material.load(write_model(tmp_path / "model", kind, head), *rows)
    for pattern in Pattern:
        wish = Comparison(scorers=("wanda",), levels=(0.5,), seeds=1, pattern=pattern)
        outcome = compare(material, tmp_path / "store", wish)
        bench = Workbench.drawn(material, tmp_path / "store", size=16)
        evaluation = build_variant(bench, outcome.cells[0].spec).evaluation
        assert outcome.cells[0].worth.metric == outcome.dense.metric == evaluation.metric.name != "accuracy"
        assert outcome.cells[0].worth.value == evaluation.metric.value


def test_scores_that_are_cached_take_no_seconds(material: Material, tmp_path: Path) -> None:
    wish = Comparison(scorers=("fisher", "wanda"), levels=(0.3,), seeds=2)
    first = compare(material, tmp_path, wish)
    assert len(first.spent.calibration_seconds) == 2
    assert {name: len(took) for name, took in first.spent.scoring_seconds.items()} == {"fisher": 2, "wanda": 2}
    further = compare(material, tmp_path, replace(wish, levels=(0.6,)))
    assert (further.computed, further.spent.calibration_seconds, dict(further.spent.scoring_seconds)) == (4, [], {})
    assert dict(further.spent.scoring_bytes) == {}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone counts this")
def test_the_memory_that_a_scorer_takes_is_told_and_not_what_it_finds(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*given: Any) -> Any:
        if given[1].scorer == "wanda":
            bytearray(b"x") * (64 << 20)
        return ranking_of(*given)

    monkeypatch.setattr(module, "ranking_of", greedy)
    outcome = compare(material, tmp_path, Comparison(scorers=("fisher", "wanda", "random"), levels=(0.3,), seeds=2))
    spent = outcome.spent.scoring_bytes
    assert all(took > 48 << 20 for took in spent["wanda"]) and len(spent["wanda"]) == 2
    assert all(took < 32 << 20 for took in spent["fisher"] + spent["random"])
    rows = {row["scorer"]: row["score_bytes"] for row in report_of(outcome, material.base.shape)["rows"]}
    assert rows == {scorer: max(took) for scorer, took in spent.items()}


@pytest.fixture
def distilled() -> Comparison:
    return Comparison(scorers=("magnitude",), levels=(0.6,), seeds=2, recovers=("none", "distill"), recipe=RECIPE)


def test_a_distilled_cell_is_worth_what_its_training_left(
    material: Material, distilled: Comparison, tmp_path: Path
) -> None:
    outcome = compare(material, tmp_path, distilled)
    bench = Workbench.drawn(material, tmp_path, seed=1, size=32)
    manifest, found = recover(bench, outcome.cells[-1].spec, material.train, replace(RECIPE, seed=1))
    assert (found.recipe["seed"], found.training["step"]) == (1, RECIPE.steps)
    assert outcome.cells[-1].worth.value == manifest.evaluation.metric.value
    assert outcome.cells[-1].worth.agreement == manifest.evaluation.agreement
    assert outcome.cells[-1].achieved_sparsity == outcome.cells[-2].achieved_sparsity
    assert [part.as_dict() for part in outcome.cells[-1].kept] == [part.as_dict() for part in outcome.cells[-2].kept]


def test_what_is_served_as_distilled_does_not_change_by_a_comparison(
    material: Material, distilled: Comparison, tmp_path: Path
) -> None:
    compare(material, tmp_path, distilled)
    with pytest.raises(RecoveryError, match="no recovered cut of sparsity"):
        build_variant(Workbench.drawn(material, tmp_path, size=32), distilled.specs_of("magnitude")[-1])


def test_another_recipe_makes_other_cells_and_the_same_none(
    material: Material, distilled: Comparison, tmp_path: Path
) -> None:
    assert compare(material, tmp_path, distilled).computed == 4
    assert compare(material, tmp_path, distilled).computed == 0
    assert compare(material, tmp_path, replace(distilled, recipe=replace(RECIPE, steps=3))).computed == 2


def test_an_interrupted_training_goes_on(
    material: Material, distilled: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compare(material, tmp_path / "whole", distilled)
    learn, steps = Student.learn, 0

    def interrupted(*given: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == RECIPE.steps:
            raise KeyboardInterrupt
        learn(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Student, "learn", interrupted)
        compare(material, tmp_path / "cut", distilled)
    counted: list[float] = []
    monkeypatch.setattr(Student, "learn", lambda *given: counted.append(given[-1]) or learn(*given))
    assert plain(compare(material, tmp_path / "cut", distilled)) == plain(whole)
    assert len(counted) == 1 + RECIPE.steps  # the last step of the first seed, all of the second


def test_layers_that_are_equally_wide_are_compared_apart(
    material: Material, comparison: Comparison, whole: tuple[Path, Outcome]
) -> None:
    even = compare(material, whole[0], replace(comparison, scope=Scope.LAYERWISE, seeds=1))
    assert even.computed == 4
    assert {len({part.kept for part in cell.kept[1::2]}) for cell in even.cells} == {1}


def test_a_damaged_cell_is_told_before_any_work(
    material: Material, comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(material, tmp_path, replace(comparison, seeds=1))
    next((tmp_path / "comparisons").iterdir()).write_text("{")
    monkeypatch.setattr(CalibrationCache, "put", lambda *_: pytest.fail("worked first"))
    with pytest.raises(StoreError, match=r"damaged .* delete it"):
        compare(material, tmp_path, comparison)


def test_watchers_see_every_step_and_all_work_done_at_the_end(
    material: Material, comparison: Comparison, tmp_path: Path
) -> None:
    seen: list[tuple[str, int, int]] = []
    compare(material, tmp_path, comparison, lambda *told: seen.append(told))
    assert {"seed 0, calibration", "seed 1, wanda: scores", "seed 1, wanda at 0.6"} <= {what for what, _, _ in seen}
    done = [done for _, done, _ in seen]
    assert done == sorted(done)
    assert done[-1] == seen[-1][2] and len({total for _, _, total in seen}) == 1
