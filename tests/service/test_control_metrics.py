import math
from dataclasses import replace
from typing import Any

import pytest

from service.control_metrics import ControlMetrics
from service.operations import Phase
from service.policy import Policy
from tests.service.control_parts import first_state
from tests.service.rollout_parts import after, built, change, reported


def row(sparsity: float, **others: Any) -> dict[str, Any]:
    values = {
        "requested_sparsity": sparsity,
        "achieved_sparsity": sparsity + 0.001,
        "accuracy": 0.9 - sparsity / 10,
        "accuracy_interval": [0.8, 0.95],
        "agreement": 0.97,
        "macs": 12_345,
        "latency_p50_ms": 4.2,
        "items_per_s": 250.0,
    }
    return values | others


def value(metrics: ControlMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"sparsedial_{name}", labels)


def test_a_committed_change_counts_once_with_its_phases() -> None:
    metrics = ControlMetrics()
    metrics.operation_ended(after(first_state(), change(), built(), reported()).history[-1])
    assert value(metrics, "swaps_total", outcome="committed") == 1
    assert value(metrics, "swaps_total", outcome="rolled_back") == 0
    for phase, seconds in {"build": 2.0, "prepare": 3.0, "total": 5.0}.items():
        assert value(metrics, "swap_phase_duration_seconds_sum", phase=phase) == seconds
    metrics.commit_seen_everywhere(0.004)
    assert value(metrics, "swap_phase_duration_seconds_bucket", phase="commit", le="0.005") == 1


def test_a_clock_that_went_back_does_not_break_the_sums() -> None:
    metrics = ControlMetrics()
    done = after(first_state(), change(), built(), reported()).history[-1]
    metrics.operation_ended(replace(done, entered=((Phase.BUILDING, 9.0), (Phase.COMMITTED, 1.0))))
    assert value(metrics, "swap_phase_duration_seconds_sum", phase="total") == 0.0


def test_levels_are_labelled_as_asked_for_in_base_units_and_replaced() -> None:
    metrics = ControlMetrics()
    metrics.set_levels([row(0.0), row(0.3)])
    metrics.set_levels([row(0.0), row(0.5)])
    assert value(metrics, "level_latency_seconds", sparsity="0.5") == pytest.approx(0.0042)
    assert value(metrics, "level_accuracy_low_ratio", sparsity="0.5") == 0.8
    assert value(metrics, "level_macs", sparsity="0") == 12_345
    assert value(metrics, "level_accuracy_ratio", sparsity="0.3") is None


def test_the_page_shows_where_the_controller_stands() -> None:
    metrics = ControlMetrics()
    policy = Policy(accuracy_floor=0.85)
    metrics.set_controller(generation=7, replicas=2, running=True, policy=policy)
    page = metrics.page().decode()
    for line in ("controller_generation 7.0", "controller_replicas 2.0", "controller_operation_in_progress 1.0"):
        assert f"sparsedial_{line}\n" in page
    assert math.isclose(value(metrics, "accuracy_floor_ratio") or 0.0, 0.85)
    assert math.isnan(value(metrics, "slo_p99_seconds") or 0.0)
    metrics.set_controller(generation=7, replicas=2, running=True, policy=policy.changed({"slo_p99_ms": 50}))
    assert value(metrics, "slo_p99_seconds") == 0.05


def test_every_controller_has_a_registry_of_its_own() -> None:
    first, second = ControlMetrics(), ControlMetrics()
    first.set_levels([row(0.3)])
    assert value(second, "level_macs", sparsity="0.3") is None
