"""What a Serve config file is turned into; nothing is started."""

import logging
from pathlib import Path
from typing import Any

import pytest

import service.app
import service.engine_choice
from service.app import build_control, build_model
from service.engine_errors import EngineError


@pytest.mark.parametrize(
    ("device", "in_cluster", "wanted"),
    [("cpu", 4.0, 0), ("cuda", 0.0, 0.5), ("cuda", 4.0, 0.5), ("auto", 4.0, 0.5), ("auto", 0.0, 0), ("auto", 0.5, 0)],
)
def test_a_config_asks_ray_for_the_share_of_a_gpu_that_its_settings_mean(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, in_cluster: float, wanted: float
) -> None:
    monkeypatch.setattr(service.app, "cluster_gpus", lambda: in_cluster)
    asked: list[float] = []

    def application(settings: Any, sources: Any, num_gpus: float) -> None:
        asked.append(num_gpus)

    monkeypatch.setattr(service.app, "model_application", application)
    build_model({"store": str(tmp_path), "device": device, "gpus_per_replica": 0.5})
    assert asked == [wanted]


def test_without_bounds_there_are_as_many_replicas_as_told(tmp_path: Path) -> None:
    model = deployment_of(build_model({"store": str(tmp_path), "replicas": 3, "device": "cpu"}))
    assert (model.num_replicas, model._deployment_config.autoscaling_config) == (3, None)
    assert model._replica_config.max_replicas_per_node is None


def test_with_bounds_requests_in_flight_call_for_replicas(tmp_path: Path) -> None:
    model = deployment_of(
        build_model(
            {
                **{"store": str(tmp_path), "device": "cpu", "replicas": 2, "max_replicas": 5, "replicas_per_node": 1},
                **{"target_inflight": 7, "scale_up_s": 20, "scale_down_s": 300},
            }
        )
    )
    config = model._deployment_config.autoscaling_config
    assert (config.min_replicas, config.max_replicas, config.target_ongoing_requests) == (2, 5, 7)
    assert (config.upscale_delay_s, config.downscale_delay_s) == (20, 300)
    assert config.metrics_interval_s < config.look_back_period_s <= 20
    assert model._replica_config.max_replicas_per_node == 1


def test_a_node_that_offers_ray_no_cpu_gets_nothing(tmp_path: Path) -> None:
    for build in (build_control, build_model):
        options = deployment_of(build({"store": str(tmp_path), "device": "cpu", "replicas": 256})).ray_actor_options
        assert 0 < 257 * options["num_cpus"] < 1


def deployment_of(application: Any) -> Any:
    return application._bound_deployment


def test_a_cpu_that_nobody_asked_for_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "service.app")
    build_model({"store": str(tmp_path), "device": "cpu"})
    assert not caplog.messages
    build_model({"store": str(tmp_path)})
    assert "device: cuda" in caplog.text


def test_a_config_that_names_an_engine_which_is_not_installed_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(service.engine_choice, "openvino_installed", lambda: False)
    with pytest.raises(EngineError, match="is not installed"):
        build_model({"store": str(tmp_path), "engine": "openvino"})
