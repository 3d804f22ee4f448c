from dataclasses import replace
from pathlib import Path

import pytest

from pruning.errors import StoreError
from pruning.frontier import ROUNDS, frontier_rows, measure_side_by_side, newest_speeds, unmeasured
from pruning.pipeline import build_variant
from pruning.spec import Pattern, Precision, PruneSpec
from pruning.variants import Manifest, VariantStore
from pruning.workbench import Workbench

KEYS = {
    "variant",
    "requested_sparsity",
    "achieved_sparsity",
    "pattern",
    "scorer",
    "recover",
    "scope",
    "metric",
    "metric_value",
    "metric_interval",
    "other_metrics",
    "accuracy",
    "accuracy_interval",
    "accuracy_rows",
    "rows_digest",
    "dominated_by",
    "speedup_over_float32",
    "agreement",
    "parameters",
    "prunable_parameters",
    "macs",
    "macs_length",
    "bytes",
    "latency_p50_ms",
    "items_per_s",
    "speed_device",
    "speeds_run",
    "speedup",
    "ideal_speedup",
    "heads",
    "neurons",
    "build_seconds",
}
LADDER = [PruneSpec(sparsity=sparsity) for sparsity in (0.5, 0.0, 0.3)]


@pytest.fixture
def ladder(bench: Workbench) -> list[Manifest]:
    return [build_variant(bench, spec) for spec in LADDER]


def test_there_is_one_row_per_variant_least_sparse_first(bench: Workbench, ladder: list[Manifest]) -> None:
    assert [row["requested_sparsity"] for row in frontier_rows(bench.store)] == [0.0, 0.3, 0.5]


def test_every_row_has_every_number_that_a_report_needs(bench: Workbench, ladder: list[Manifest]) -> None:
    assert all(set(row) >= KEYS for row in frontier_rows(bench.store))


def test_a_row_repeats_what_its_manifest_says(bench: Workbench) -> None:
    manifest = build_variant(bench, PruneSpec(sparsity=0.5, pattern=Pattern.UNSTRUCTURED, scorer="taylor"))
    (row,) = frontier_rows(bench.store)
    assert (row["variant"], row["pattern"], row["scorer"], row["recover"]) == (
        manifest.variant_id,
        "unstructured",
        "taylor",
        "none",
    )
    assert row["accuracy_interval"] == [manifest.evaluation.accuracy_low, manifest.evaluation.accuracy_high]
    assert (row["macs"], row["bytes"]) == (manifest.cost.macs, manifest.cost.bytes)


def speedups(bench: Workbench) -> dict[str, float | None]:
    return {row["variant"]: row["speedup"] for row in frontier_rows(bench.store)}


def test_the_dense_variant_is_the_measure_of_speed(bench: Workbench, ladder: list[Manifest]) -> None:
    speeds = measure_side_by_side(bench, ladder)
    dense = frontier_rows(bench.store)[0]
    assert (dense["speedup"], dense["ideal_speedup"]) == (1.0, 1.0)
    rate = speeds[dense["variant"]].items_per_s
    assert speedups(bench) == {variant_id: speed.items_per_s / rate for variant_id, speed in speeds.items()}


def test_speeds_read_during_builds_are_compared_with_nothing(bench: Workbench, ladder: list[Manifest]) -> None:
    assert set(speedups(bench).values()) == {None}
    rows = {row["variant"]: row for row in frontier_rows(bench.store)}
    for manifest in ladder:
        row = rows[manifest.variant_id]
        assert (row["items_per_s"], row["speeds_run"]) == (manifest.speed.items_per_s, None)
        assert row["speed_device"] == manifest.speed.device == "cpu"


def test_a_level_built_after_the_run_has_no_speedup_until_all_are_measured_again(
    bench: Workbench, ladder: list[Manifest]
) -> None:
    measure_side_by_side(bench, ladder)
    late = build_variant(bench, PruneSpec(sparsity=0.8))
    assert unmeasured(bench.store, [*ladder, late]) == [late]
    assert {variant_id for variant_id, speedup in speedups(bench).items() if speedup is None} == {late.variant_id}
    measure_side_by_side(bench, [*ladder, late])
    assert unmeasured(bench.store, [*ladder, late]) == []
    assert None not in speedups(bench).values()


def test_speeds_of_two_runs_are_never_divided(bench: Workbench, ladder: list[Manifest]) -> None:
    half, dense, third = ladder
    measure_side_by_side(bench, [half, dense])
    measure_side_by_side(bench, [third])
    assert speedups(bench)[third.variant_id] is None
    assert unmeasured(bench.store, ladder) == [third]


def test_a_later_run_without_the_dense_variant_leaves_the_speedup_of_the_earlier_one(
    bench: Workbench, ladder: list[Manifest]
) -> None:
    speeds = measure_side_by_side(bench, ladder)
    before = frontier_rows(bench.store)
    measure_side_by_side(bench, ladder[:1])
    assert frontier_rows(bench.store) == before
    other = [build_variant(bench, PruneSpec(sparsity=0.5, scorer="taylor")), ladder[1]]
    measure_side_by_side(bench, other)
    rows = {row["variant"]: row for row in frontier_rows(bench.store)}
    assert rows[ladder[0].variant_id]["items_per_s"] == speeds[ladder[0].variant_id].items_per_s
    assert all(row["speedup"] is not None for row in rows.values())
    assert len({row["speeds_run"] for row in rows.values()}) == 2


def test_nothing_is_measured_in_a_store_without_speeds(bench: Workbench, ladder: list[Manifest]) -> None:
    assert unmeasured(bench.store, ladder) == ladder
    assert unmeasured(bench.store, []) == []


def test_a_speed_up_over_float32_needs_a_run_that_measured_both(bench: Workbench, ladder: list[Manifest]) -> None:
    other = build_variant(bench, PruneSpec(sparsity=0.0, precision=Precision.BFLOAT16))

    def over_float32() -> float | None:
        (row,) = frontier_rows(bench.store, only={other.variant_id})
        value: float | None = row["speedup_over_float32"]
        return value

    measure_side_by_side(bench, ladder)
    measure_side_by_side(bench, [other])
    assert over_float32() is None
    speeds = measure_side_by_side(bench, [*ladder, other])
    assert over_float32() == speeds[other.variant_id].items_per_s / speeds[ladder[1].variant_id].items_per_s


def test_rows_that_are_not_shown_dominate_none_that_are(bench: Workbench, ladder: list[Manifest]) -> None:
    measure_side_by_side(bench, ladder)
    for manifest in ladder:
        (row,) = frontier_rows(bench.store, only={manifest.variant_id})
        assert (row["variant"], row["dominated_by"]) == (manifest.variant_id, None)


def test_speeds_of_several_are_those_of_a_run_that_measured_them_together(
    bench: Workbench, ladder: list[Manifest]
) -> None:
    measure_side_by_side(bench, ladder[:1])
    ids = [manifest.variant_id for manifest in ladder]
    with pytest.raises(StoreError, match=r"no run timed .* side by side"):
        newest_speeds(bench.store, ids)
    speeds = measure_side_by_side(bench, ladder)
    assert newest_speeds(bench.store, ids) == speeds


def test_the_ideal_speedup_is_the_share_of_the_macs(bench: Workbench, ladder: list[Manifest]) -> None:
    rows = frontier_rows(bench.store)
    assert all(row["ideal_speedup"] == rows[0]["macs"] / row["macs"] for row in rows)
    assert rows[0]["ideal_speedup"] < rows[1]["ideal_speedup"] < rows[2]["ideal_speedup"]


def test_without_a_dense_variant_no_speedup_is_claimed(bench: Workbench) -> None:
    build_variant(bench, PruneSpec(sparsity=0.5))
    (row,) = frontier_rows(bench.store)
    assert (row["speedup"], row["ideal_speedup"]) == (None, None)


def test_an_empty_store_has_no_frontier(tmp_path: Path) -> None:
    assert frontier_rows(VariantStore(tmp_path)) == []


def test_only_the_variants_of_the_base_model_asked_for_are_shown(bench: Workbench, ladder: list[Manifest]) -> None:
    other = replace(ladder[0], variant_id="f" * 16, base_digest="other")
    bench.store.put(bench.store.load(ladder[0].variant_id)[1], other)
    assert len(frontier_rows(bench.store)) == 4
    assert [row["variant"] for row in frontier_rows(bench.store, "other")] == ["f" * 16]


def test_speeds_measured_side_by_side_take_the_place_of_those_of_the_build(
    bench: Workbench, ladder: list[Manifest]
) -> None:
    speeds = measure_side_by_side(bench, ladder)
    assert set(speeds) == {manifest.variant_id for manifest in ladder}
    rows = {row["variant"]: row for row in frontier_rows(bench.store)}
    for variant_id, speed in speeds.items():
        assert (rows[variant_id]["latency_p50_ms"], rows[variant_id]["items_per_s"]) == (
            speed.latency_p50_ms,
            speed.items_per_s,
        )


def test_measuring_some_keeps_the_speeds_of_the_others(bench: Workbench, ladder: list[Manifest]) -> None:
    first = measure_side_by_side(bench, ladder[:2])
    measure_side_by_side(bench, ladder[2:])
    rows = {row["variant"]: row for row in frontier_rows(bench.store)}
    assert all(rows[variant_id]["items_per_s"] == speed.items_per_s for variant_id, speed in first.items())


def test_progress_counts_the_rounds_to_the_last(bench: Workbench, ladder: list[Manifest]) -> None:
    seen: list[tuple[int, int]] = []
    measure_side_by_side(bench, ladder[:1], lambda done, total: seen.append((done, total)))
    assert seen == [(done, ROUNDS) for done in range(1, ROUNDS + 1)]


def test_damaged_speeds_are_refused_by_name_before_anything_is_timed(bench: Workbench, ladder: list[Manifest]) -> None:
    (bench.root / "speeds.json").write_text("{")
    told: list[object] = []
    for act in (
        lambda: frontier_rows(bench.store),
        lambda: unmeasured(bench.store, ladder),
        lambda: measure_side_by_side(bench, ladder, lambda *done: told.append(done)),
    ):
        with pytest.raises(
            StoreError, match=r"speeds\.json is damaged .*; delete it and run 'sparsedial prepare' again"
        ):
            act()
    assert told == []


def test_speeds_that_cannot_be_written_are_reported_with_the_remedy(
    bench: Workbench, ladder: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pruning.frontier.write_json", no_space)
    with pytest.raises(StoreError, match=r"speeds\.json could not be written: .*No space left.*; free space"):
        measure_side_by_side(bench, ladder)
