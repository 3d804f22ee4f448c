import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pruning.encoder import load_base_model
from pruning.spec import PruneSpec
from pruning.variants import Manifest
from service.internal_pages import InternalPages
from service.metrics import SECONDS_BUCKETS, ReplicaMetrics
from tests.service.inference_parts import engine_of

NAMES = [
    "requests_total",
    "request_duration_seconds",
    "stage_duration_seconds",
    "batch_tokens",
    "batch_texts",
    "queue_tokens",
    "queue_limit_tokens",
    "requests_in_flight",
    "truncated_texts_total",
    "requested_sparsity_ratio",
    "achieved_sparsity_ratio",
    "generation",
    "accuracy_ratio",
    "accuracy_low_ratio",
    "accuracy_high_ratio",
    "agreement_ratio",
    "variant_latency_seconds",
    "variant_items_per_second",
    "variant_info",
    "replica_swaps_total",
    "replica_stage_duration_seconds",
    "build_info",
]


@pytest.fixture(scope="module")
def manifest(tiny_model_dir: Path) -> Manifest:
    return engine_of(load_base_model(tiny_model_dir), "a" * 16, 0.5).manifest


def values(page: str) -> dict[tuple[str, ...], float]:
    """Return {(sample name, label values by label name...): value}."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_every_promised_family_is_on_the_page() -> None:
    page = ReplicaMetrics("1.0").page()
    declared = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}
    assert {f"sparsedial_{name}" for name in NAMES} <= declared
    assert not any(name.endswith("_created") for name in declared)


def test_a_swap_replaces_what_is_said_of_the_variant(manifest: Manifest) -> None:
    metrics = ReplicaMetrics("1.0")
    metrics.set_variant(manifest, 1, "torch")
    second = replace(manifest, variant_id="b" * 16, spec=PruneSpec(sparsity=0.7, scorer="taylor"))
    metrics.set_variant(second, 2, "openvino")
    metrics.set_variant(second, 3, "openvino")
    seen = values(metrics.page())
    info = [key for key in seen if key[0] == "sparsedial_variant_info"]
    labels = ("openvino", "structured", "float32", "reconstruct", "taylor", "b" * 16)
    assert info == [("sparsedial_variant_info", *labels)]
    assert seen[("sparsedial_generation",)] == 3
    assert seen[("sparsedial_requested_sparsity_ratio",)] == 0.7
    assert seen[("sparsedial_achieved_sparsity_ratio",)] == 0.5
    assert seen[("sparsedial_accuracy_low_ratio",)] == 0.85
    assert seen[("sparsedial_variant_latency_seconds",)] == 0.004


def test_watched_gauges_are_read_when_the_page_is() -> None:
    metrics = ReplicaMetrics("1.0")
    state = {"queue": 7, "limit": 9, "flight": 2}
    metrics.watch(
        queue_tokens=lambda: state["queue"],
        queue_limit_tokens=lambda: state["limit"],
        in_flight=lambda: state["flight"],
    )
    assert values(metrics.page())[("sparsedial_queue_limit_tokens",)] == 9
    assert values(metrics.page())[("sparsedial_queue_tokens",)] == 7
    state["queue"] = 0
    assert values(metrics.page())[("sparsedial_queue_tokens",)] == 0
    assert values(metrics.page())[("sparsedial_requests_in_flight",)] == 2


def test_two_replicas_in_one_process_do_not_share_a_registry() -> None:
    first, second = ReplicaMetrics("1.0"), ReplicaMetrics("1.0")
    first.requests.labels("/", "ok").inc()
    assert ("sparsedial_requests_total", "ok", "/") in values(first.page())
    assert ("sparsedial_requests_total", "ok", "/") not in values(second.page())


def test_time_is_resolved_from_half_a_millisecond_to_ten_seconds() -> None:
    assert (SECONDS_BUCKETS[0], SECONDS_BUCKETS[-1]) == (0.0005, 10.0)
    assert list(SECONDS_BUCKETS) == sorted(set(SECONDS_BUCKETS))


def test_the_page_is_served_on_a_free_port() -> None:
    metrics = ReplicaMetrics("1.0")
    server = InternalPages(metrics.registry, "127.0.0.1")
    try:
        with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=30) as response:
            assert "sparsedial_queue_limit_tokens 0.0" in response.read().decode()
    finally:
        server.close()
