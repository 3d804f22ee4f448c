from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.spec import Pattern, PruneSpec
from service.errors import Invalid
from service.plan import P99_FACTOR, Facts, best_level, p99_of, plan_level

NAMES = ("latency_p50_ms", "macs", "parameters", "bytes", "items_per_s", "p99_ms")


def row(sparsity: float, accuracy: float, latency_ms: float, **changes: Any) -> dict[str, Any]:
    spec = PruneSpec(sparsity=sparsity).as_dict()
    return {
        **{name: spec[name] for name in ("pattern", "scorer", "recover", "precision")},
        "scope": None,
        "structures": "heads+neurons",
        "rounds": 1,
        "variant": f"v{sparsity:g}",
        "requested_sparsity": sparsity,
        "achieved_sparsity": sparsity,
        "accuracy": accuracy,
        "accuracy_interval": [accuracy - 0.02, accuracy + 0.015],
        "agreement": accuracy,
        "latency_p50_ms": latency_ms,
        "items_per_s": 1000.0 / latency_ms,
        "macs": 100.0 * latency_ms,
        "parameters": 10.0 * latency_ms,
        "bytes": 40.0 * latency_ms,
        "build_seconds": {"cut": 0.5, "evaluate": sparsity},
        **changes,
    }


ROWS = [row(0.0, 0.9, 8.0), row(0.3, 0.89, 6.0), row(0.5, 0.87, 4.0), row(0.7, 0.84, 3.0)]
FACTS = Facts(accuracy_floor=0.85, resident={"v0", "v0.3", "v0.5"}, live_p99_ms={})


def test_a_level_that_exists_is_told_as_measured() -> None:
    plan = plan_level(PruneSpec(sparsity=0.5), ROWS, FACTS)
    assert (plan["exact"], plan["variant"], plan["resident"], plan["build_s"]) == (True, "v0.5", True, 0.0)
    assert (plan["accuracy"], plan["macs"], plan["items_per_s"]) == (0.87, 400.0, 250.0)
    assert plan["accuracy_interval"] == ROWS[2]["accuracy_interval"]
    assert plan["passes_floor"]
    sparse = plan_level(PruneSpec(sparsity=0.7), ROWS, FACTS)
    assert (sparse["resident"], sparse["passes_floor"]) == (False, False)


@given(st.floats(0.0, 0.7), st.floats(0.0, 0.7))
def test_a_prediction_lies_between_its_neighbours_and_follows_their_order(one: float, other: float) -> None:
    first, second = (plan_level(PruneSpec(sparsity=sparsity), ROWS, FACTS) for sparsity in sorted((one, other)))
    assert first["accuracy"] >= second["accuracy"] - 1e-12
    assert all(first[name] >= second[name] - 1e-9 for name in NAMES if name != "items_per_s")
    assert first["items_per_s"] <= second["items_per_s"] + 1e-9
    ends = [row for row in ROWS if row["requested_sparsity"] in first["neighbours"]]
    low, high = ends[0], ends[-1]
    assert high["accuracy"] - 1e-12 <= first["accuracy"] <= low["accuracy"] + 1e-12
    assert first["accuracy_interval"] == [high["accuracy_interval"][0], low["accuracy_interval"][1]]


def test_a_prediction_says_that_it_is_one_and_what_building_takes() -> None:
    plan = plan_level(PruneSpec(sparsity=0.6), ROWS, FACTS)
    assert (plan["exact"], plan["variant"], plan["resident"], plan["neighbours"]) == (False, None, False, [0.5, 0.7])
    assert plan["build_s"] == pytest.approx(1.1)
    assert plan["accuracy"] == pytest.approx(0.855)
    assert plan_level(PruneSpec(sparsity=0.2), ROWS, FACTS)["build_s"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (PruneSpec(sparsity=0.8), r"0\.8 lies between no two levels cut by fisher.*stored: 0, 0\.3, 0\.5, 0\.7"),
        (PruneSpec(sparsity=0.5, scorer="taylor"), r"cut by taylor, structured, reconstruct; stored: 0\."),
        (PruneSpec(sparsity=0.5, pattern=Pattern.UNSTRUCTURED), "unstructured"),
    ],
)
def test_where_there_is_no_neighbour_nothing_is_made_up(spec: PruneSpec, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        plan_level(spec, ROWS, FACTS)


def test_a_percentile_is_what_live_answers_took_or_follows_from_those_of_another_level() -> None:
    assert p99_of(ROWS[2], ROWS, FACTS)[0] == P99_FACTOR * 4.0
    facts = Facts(accuracy_floor=0.85, resident=(), live_p99_ms={"v0": 80.0, "v0.5": 20.0})
    assert p99_of(ROWS[2], ROWS, facts) == (20.0, "live traffic")
    milliseconds, words = p99_of(ROWS[3], ROWS, facts)
    assert milliseconds == pytest.approx(3.0 * 20.0 / 4.0) and "live traffic at 0.5" in words


@pytest.mark.parametrize(
    ("p99_ms", "accuracy", "sparsity", "words"),
    [
        (19.0, None, 0.3, "the densest of 2 levels within 19 ms"),
        (100.0, None, 0.0, "the densest of 3"),
        (None, 0.88, 0.3, "the fastest of 2 levels"),
        (None, 0.5, 0.5, "0.8500 or more"),
        (18.0, 0.88, 0.3, "the densest of 1"),
    ],
)
def test_the_best_level_is_the_densest_in_time_or_the_fastest_that_is_accurate(
    p99_ms: float | None, accuracy: float | None, sparsity: float, words: str
) -> None:
    plan = best_level(p99_ms, accuracy, ROWS, FACTS)
    assert plan["sparsity"] == sparsity and plan["exact"]
    assert words in plan["reason"]


@pytest.mark.parametrize(
    ("p99_ms", "accuracy", "words"),
    [
        (None, 0.95, r"No level has an accuracy of 0\.9500: the best, 0, has 0\.9000"),
        (5.0, None, r"No level of accuracy 0\.8500 answers within 5 ms: the fastest, 0\.5 .*, takes 12\.0"),
        (10.0, 0.89, r"No level of accuracy 0\.8900 .* the fastest, 0\.3"),
    ],
)
def test_a_bound_that_no_level_keeps_is_named_with_what_comes_nearest(
    p99_ms: float | None, accuracy: float | None, words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        best_level(p99_ms, accuracy, ROWS, FACTS)
