import socket
import tempfile
from pathlib import Path

import pytest

from service.fast_path import COMMON, HAPROXY, free_ports, set_environment, socket_folder
from service.settings import Ingress

NODE_ID = 56 * "f"
"""Ray puts its node's id between the folder and the socket."""


def environment(folder: Path, ingress: Ingress = Ingress.HAPROXY, own: bool = True, **given: str) -> dict[str, str]:
    values = dict(given)
    set_environment(ingress, folder, replicas=2, own_cluster=own, environment=values)
    return values


def test_nothing_that_the_user_set_is_overwritten(tmp_path: Path) -> None:
    given = {name: f"mine {number}" for number, name in enumerate(environment(tmp_path))}
    assert len(given) > len(COMMON) + len(HAPROXY)
    assert environment(tmp_path, **given) == given
    one = environment(tmp_path, RAY_AUTH_MODE="disabled")
    assert (one["RAY_AUTH_MODE"], one["RAY_SERVE_ENABLE_HA_PROXY"]) == ("disabled", "1")


def test_the_default_proxy_gets_nothing_of_haproxy(tmp_path: Path) -> None:
    values = environment(tmp_path, Ingress.PROXY)
    assert not [name for name in values if "HAPROXY" in name or "HA_PROXY" in name or "THROUGHPUT" in name]
    assert COMMON.items() <= values.items()


def test_a_cluster_of_our_own_asks_for_a_token_that_is_new_each_time(tmp_path: Path) -> None:
    first, second = environment(tmp_path), environment(tmp_path)
    assert first["RAY_AUTH_MODE"] == "token"
    assert len(first["RAY_AUTH_TOKEN"]) >= 32
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]
    assert not [name for name in environment(tmp_path, own=False) if name.startswith("RAY_AUTH")]


def test_two_services_get_different_files() -> None:
    with socket_folder() as one, socket_folder() as other:
        first, second = environment(one), environment(other)
        own = [name for name in first if "HAPROXY" in name and name not in HAPROXY and not name.endswith("_PORT")]
        assert len(own) == 5
        assert all(first[name] != second[name] for name in own)
    assert not one.exists() and not other.exists()


@pytest.mark.parametrize("temporary", ["/tmp", "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T", "here"])
def test_the_socket_is_one_that_can_be_bound(temporary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of_user = tmp_path / ("long" * 20) if temporary == "here" else Path(temporary)
    monkeypatch.setattr(tempfile, "tempdir", str(folder_of_user))
    with socket_folder() as folder:
        path = Path(environment(folder)["RAY_SERVE_HAPROXY_SOCKET_PATH"])
        below = path.parent / NODE_ID / path.name
        assert len(str(below)) < 97
        below.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"{below}.12345.tmp")


def test_the_user_s_own_temporary_folder_is_used_where_it_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        with socket_folder() as folder:
            assert folder.parent == Path(short)


def test_free_ports_differ_and_can_be_bound() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


@pytest.mark.parametrize("replicas", [1, 8, 256])
def test_each_service_has_ports_of_its_own_that_nobody_answers_on(replicas: int, tmp_path: Path) -> None:
    values: dict[str, str] = {}
    set_environment(Ingress.HAPROXY, tmp_path, replicas=replicas, own_cluster=True, environment=values)
    names = [f"RAY_SERVE_DIRECT_INGRESS_{end}_{kind}_PORT" for kind in ("HTTP", "GRPC") for end in ("MIN", "MAX")]
    names += [f"RAY_SERVE_FALLBACK_PROXY_{kind}_PORT" for kind in ("HTTP", "GRPC")]
    names += [f"RAY_SERVE_HAPROXY_{page}_PORT" for page in ("STATS", "METRICS")]
    ports = [int(values[name]) for name in names]
    assert ports == sorted(set(ports))
    assert ports[1] - ports[0] > replicas
    assert ports[0] >= 20_000 and ports[-1] < 32_768, "above, Linux gives ports to whoever asks for any"
    for port in (ports[0], *ports[-4:]):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
