import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import app
from service.fast_path import COMMON, HAPROXY
from service.ray_service import serve_limit_s
from service.settings import Settings
from tests.deploy.dashboards import ROOT

DEPLOY = ROOT / "deploy"
YAML_FILES = sorted([*DEPLOY.rglob("*.yml"), *DEPLOY.rglob("*.yaml")])


def environment_names() -> set[str]:
    return {f"SPARSEDIAL_{field.upper()}" for field in Settings.model_fields}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    compose: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return compose


@pytest.fixture(scope="module")
def ray_service() -> dict[str, Any]:
    documents = yaml.safe_load_all((DEPLOY / "kuberay" / "rayservice.yaml").read_text(encoding="utf-8"))
    found: dict[str, Any] = next(document for document in documents if document["kind"] == "RayService")
    return found


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_yaml_file_parses(path: Path) -> None:
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(path.read_text(encoding="utf-8")))


def test_every_file_of_a_setting_names_a_real_setting() -> None:
    texts = [path.read_text(encoding="utf-8") for path in [*YAML_FILES, ROOT / "Dockerfile"]]
    named = {name for text in texts for name in re.findall(r"\bSPARSEDIAL_[A-Z_]+", text)}
    assert named - environment_names() == set()


def test_compose_publishes_on_loopback_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_keeps_the_store_and_gives_time_to_drain(compose: dict[str, Any]) -> None:
    service = compose["services"]["sparsedial"]
    assert "store:/data" in service["volumes"] and "store" in compose["volumes"]
    assert int(service["stop_grace_period"].removesuffix("s")) > Settings().drain_timeout_s


def test_compose_mounts_what_exists(compose: dict[str, Any]) -> None:
    mounted = [volume for name in ("prometheus", "grafana") for volume in compose["services"][name]["volumes"]]
    sources = [volume.split(":")[0] for volume in mounted if volume.startswith("./")]
    assert len(sources) == 3
    assert all((DEPLOY / source).is_dir() for source in sources)


def test_grafana_is_provisioned_with_what_the_dashboard_uses(compose: dict[str, Any]) -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    assert source["datasources"][0]["type"] == "prometheus"
    assert source["datasources"][0]["jsonData"]["timeInterval"] == scrape["global"]["scrape_interval"]
    provider = yaml.safe_load((provisioning / "dashboards" / "sparsedial.yml").read_text(encoding="utf-8"))
    folder = provider["providers"][0]["options"]["path"]
    assert f"./grafana/dashboards:{folder}:ro" in compose["services"]["grafana"]["volumes"]


def test_kuberay_starts_both_applications_on_the_pinned_ray(ray_service: dict[str, Any]) -> None:
    serve = yaml.safe_load(ray_service["spec"]["serveConfigV2"])
    imports = {application["route_prefix"]: application["import_path"] for application in serve["applications"]}
    assert imports == {"/admin": f"{app.__name__}:build_control", "/": f"{app.__name__}:build_model"}
    assert callable(app.build_control) and callable(app.build_model)
    for application in serve["applications"]:
        settings = Settings(**application["args"])
        assert settings.store == Path("/data")
        assert serve["http_options"]["request_timeout_s"] >= serve_limit_s(settings)
    version = ray_service["spec"]["rayClusterConfig"]["rayVersion"]
    assert f"ray=={version}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def test_kuberay_gives_every_node_the_same_environment_and_store(ray_service: dict[str, Any]) -> None:
    cluster = ray_service["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [group["template"]["spec"] for group in groups]
    head, worker = (pod["containers"][0] for pod in pods)
    assert head["env"] == worker["env"]
    assert head["image"] == worker["image"]
    variables = {variable["name"]: variable.get("value") for variable in head["env"]}
    longer_here = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"}
    measured = {name: value for name, value in (COMMON | HAPROXY).items() if name not in longer_here}
    assert measured.items() <= variables.items()
    assert longer_here <= variables.keys()
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert any(volume.get("persistentVolumeClaim") for volume in pod["volumes"])
        assert {"readinessProbe", "livenessProbe"} <= pod["containers"][0].keys()


def test_kuberay_waits_before_it_stops_a_worker(ray_service: dict[str, Any]) -> None:
    pod = ray_service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    command = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["sleep", "30"]
    assert pod["terminationGracePeriodSeconds"] > 30 + Settings().drain_timeout_s
