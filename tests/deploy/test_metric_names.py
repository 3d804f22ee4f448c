import re
from collections.abc import Iterator

import pytest
import yaml
from prometheus_client import CollectorRegistry

from service.control_metrics import ControlMetrics
from service.metrics import ReplicaMetrics
from tests.deploy.dashboards import ROOT, queries

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def names_of(registry: CollectorRegistry) -> Iterator[str]:
    for family in registry.collect():
        yield from (family.name + suffix for suffix in SUFFIXES[family.type])


@pytest.fixture(scope="module")
def exposed() -> set[str]:
    replica = ReplicaMetrics(version="0")
    return {*names_of(replica.registry), *names_of(ControlMetrics().registry)}


def expressions() -> Iterator[str]:
    yield from (query.expr for query in queries())
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    yield from (rule["expr"] for group in rules["groups"] for rule in group["rules"])


def test_every_metric_that_is_asked_for_is_exposed(exposed: set[str]) -> None:
    asked = {name for expr in expressions() for name in re.findall(r"\bsparsedial_\w+", expr)}
    assert len(asked) > 25
    assert asked - exposed == set()


def test_the_slow_alert_has_a_bucket_boundary_as_its_threshold() -> None:
    from service.metrics import SECONDS_BUCKETS

    slow = next(expr for expr in expressions() if "histogram_quantile" in expr and ">" in expr)
    threshold = re.search(r"> ([\d.]+)", slow)
    assert threshold and float(threshold[1]) in SECONDS_BUCKETS
