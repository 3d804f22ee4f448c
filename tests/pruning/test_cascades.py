import json
from pathlib import Path
from typing import Any

import pytest

from pruning.cascade import AGREEMENTS, unsure
from pruning.cascade_rows import cascade_rows
from pruning.cascades import calibrate_cascades, missing_cascades, read_cascades
from pruning.errors import StoreError
from pruning.frontier import frontier_rows, measure_side_by_side
from pruning.pipeline import build_variant
from pruning.prediction import predict_logits
from pruning.slim.convert import build_slim
from pruning.spec import Pattern, PruneSpec
from pruning.variants import Manifest
from pruning.workbench import Workbench


@pytest.fixture
def ladder(bench: Workbench) -> list[Manifest]:
    return [build_variant(bench, PruneSpec(sparsity=sparsity)) for sparsity in (0.0, 0.5)]


def rows_of(bench: Workbench) -> list[dict[str, Any]]:
    return cascade_rows(bench.store, frontier_rows(bench.store))


def test_cascades_are_calibrated_once_and_read_back(bench: Workbench, ladder: list[Manifest]) -> None:
    done: list[tuple[int, int]] = []
    calibrate_cascades(bench, ladder, lambda one, total: done.append((one, total)))
    (cascades,) = read_cascades(bench.root).values()
    assert [one.target for one in cascades] == list(AGREEMENTS)
    assert {(one.variant_id, one.dense_id) for one in cascades} == {(ladder[1].variant_id, ladder[0].variant_id)}
    assert all(one.calibration_agreement >= one.target for one in cascades)
    assert len({one.cascade_id for one in cascades}) == len(AGREEMENTS)
    assert missing_cascades(bench, ladder) == []
    calibrate_cascades(bench, ladder, lambda one, total: done.append((one, total)))
    assert done == [(0, 1), (1, 1)]


def test_a_cascade_answers_as_the_dense_model_where_its_level_is_unsure(
    bench: Workbench, ladder: list[Manifest]
) -> None:
    calibrate_cascades(bench, ladder)
    cascade = read_cascades(bench.root)[ladder[1].variant_id][-1]
    model = build_slim(bench.base, bench.store.load(ladder[1].variant_id)[1])
    logits = predict_logits(model, bench.evaluation.sequences).numpy()
    handed_on = unsure(logits, cascade.threshold)
    answers = logits.argmax(1)
    answers[handed_on] = bench.reference().numpy().argmax(1)[handed_on]
    assert cascade.escalated == pytest.approx(handed_on.mean())
    assert cascade.evaluation.accuracy == pytest.approx((answers == bench.evaluation.labels.numpy()).mean())
    assert cascade.evaluation.agreement == pytest.approx((answers == bench.reference().numpy().argmax(1)).mean())


def test_a_text_costs_its_level_and_its_share_of_the_dense_model(bench: Workbench, ladder: list[Manifest]) -> None:
    calibrate_cascades(bench, ladder)
    row = rows_of(bench)[-1]
    assert row["macs"] == ladder[1].cost.macs + row["escalated"] * ladder[0].cost.macs
    assert (row["items_per_s"], row["speedup"], row["dominated_by"]) == (None, None, None)
    speeds = measure_side_by_side(bench, ladder)
    row = rows_of(bench)[-1]
    seconds = 1 / speeds[ladder[1].variant_id].items_per_s + row["escalated"] / speeds[ladder[0].variant_id].items_per_s
    assert row["items_per_s"] == pytest.approx(1 / seconds)


def test_what_multiplies_no_less_than_dense_begins_no_cascade(bench: Workbench, ladder: list[Manifest]) -> None:
    zeros = build_variant(bench, PruneSpec(sparsity=0.5, pattern=Pattern.UNSTRUCTURED))
    assert missing_cascades(bench, [ladder[0], zeros]) == []
    assert missing_cascades(bench, [ladder[1]]) == []


def test_cascades_are_shown_only_with_both_their_models(bench: Workbench, ladder: list[Manifest]) -> None:
    calibrate_cascades(bench, ladder)
    assert read_cascades(bench.root, [ladder[1].variant_id]) == {}
    only = frontier_rows(bench.store, only=[ladder[1].variant_id])
    assert cascade_rows(bench.store, only) == []


def altered(path: Path) -> None:
    document = json.loads(path.read_text())
    document["cascades"][0]["threshold"] = 0.0
    document["sha256"] = "0" * 64
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("damage", [altered, lambda path: path.write_text("{")])
def test_damaged_cascades_are_refused_by_name(bench: Workbench, ladder: list[Manifest], damage: Any) -> None:
    calibrate_cascades(bench, ladder)
    (path,) = (bench.root / "cascades").iterdir()
    damage(path)
    with pytest.raises(StoreError, match=f"{path.name} (is damaged|does not match its checksum 0{{12}}).*delete it"):
        read_cascades(bench.root)


def test_other_rows_apart_are_another_calibration(bench: Workbench, ladder: list[Manifest]) -> None:
    calibrate_cascades(bench, ladder)
    (before,) = read_cascades(bench.root).values()
    bench.apart = bench.train.subset(range(20))
    assert missing_cascades(bench, ladder) != []
    calibrate_cascades(bench, ladder)
    (after,) = read_cascades(bench.root).values()
    assert {(one.apart, one.calibration_rows) for one in before} == {(False, len(bench.train))}
    assert {(one.apart, one.calibration_rows) for one in after} == {(True, 20)}
    assert not {one.cascade_id for one in before} & {one.cascade_id for one in after}
