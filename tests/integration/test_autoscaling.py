"""Replicas that come with load and go without it: born with the whole ladder, and no answer is lost by it."""

from contextlib import ExitStack

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.conftest import LiveService, Start
from tests.integration.test_many_replicas import MODEL, generations, until
from tests.integration.test_service import Traffic

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

HASTY = {
    "SPARSEDIAL_TARGET_INFLIGHT": "0.3",
    "SPARSEDIAL_SCALE_UP_S": "0",
    "SPARSEDIAL_SCALE_DOWN_S": "2",
}
LEVELS = (0.0, 0.3, 0.5)


def test_load_brings_a_replica_with_the_whole_ladder_and_quiet_lets_it_go(start_service: Start) -> None:
    service = start_service(None, "--max-replicas", "2", **HASTY)
    committed = service.dial(0.5)
    with Traffic(service, pause_s=0.02) as quiet:
        with ExitStack() as load:
            many = [load.enter_context(Traffic(service, texts=100)) for _ in range(3)]
            until(lambda: len(answering(service)) == 2)
            assert generations(service) == [committed["generation"]] * 2
            for turn in range(12):  # a connection each, so that either replica is asked
                assert service.info()["generation"] == committed["generation"]
                levels = [level["sparsity"] for level in service.info()["levels"]]
                assert sorted(levels) == list(LEVELS)
                asked = {"x-sparsity": f"{LEVELS[turn % 3]:g}"}
                assert httpx.post(service.url, json={"inputs": "fine"}, headers=asked, timeout=60).status_code == 200
            swapped = service.dial(0.3)
            assert generations(service) == [swapped["generation"]] * 2
        until(lambda: len(generations(service)) == 1)
        until(lambda: len(service.processes(MODEL)) == 1)
    assert [traffic.failed for traffic in (quiet, *many)] == [[]] * 4
    assert set(quiet.generations) == {committed["generation"], swapped["generation"]}
    assert service.ask().headers["x-generation"] == str(swapped["generation"])
    assert service.stop() == 0


def answering(service: LiveService) -> set[str]:
    """The live replicas that have answered requests."""
    page = httpx.get(f"{service.url}/metrics", timeout=60).text
    return {
        sample.labels["replica"]
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "sparsedial_requests_total" and sample.labels["route"] == "/" and sample.value
    }
