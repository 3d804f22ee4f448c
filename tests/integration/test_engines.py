"""Which engine computes a service."""

import httpx
import pytest
import torch

from tests.integration.conftest import LiveService, Start

pytestmark = pytest.mark.ray
pytest.importorskip("openvino", reason="the extra openvino is not installed")


def test_openvino_answers_at_every_level_and_what_it_does_not_compute_leaves_the_traffic_untouched(
    start_service: Start,
) -> None:
    service = start_service(None, "--engine", "openvino")
    asked = service.ask()
    assert asked.status_code == 200
    for sparsity in (0.5, 0.4):  # of the ladder, and a new one
        assert service.dial(sparsity)["phase"] == "committed"
        info = service.info()
        assert (info["engine"], info["engine_readings"]) == ("openvino", None)
        assert info["requested_sparsity"] == sparsity
        assert service.ask().json()[0][0]["label"] == asked.json()[0][0]["label"]
    refused = service.dial(0.4, precision="int8")
    assert refused["phase"] in ("failed", "rolled_back"), refused
    assert "int8" in refused["error"]
    assert service.info() == info
    assert service.ask().status_code == 200
    assert service.stop() == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="replicas compute on the GPU, where nothing is chosen")
def test_the_service_says_which_engine_it_chose_and_by_what(live_service: LiveService) -> None:
    info = live_service.info()
    assert info["engine_readings"].keys() == {"torch", "openvino"}
    assert info["engine"] in info["engine_readings"]
    assert f'engine="{info["engine"]}"' in httpx.get(f"{live_service.url}/metrics", timeout=60).text
