from typing import Any

import pytest
import ray

from pruning.errors import PruningError
from service.fast_path import free_ports
from service.ray_connection import connect


def unexpected(**kwargs: Any) -> Any:
    raise AssertionError("nobody is there to ask")


@pytest.mark.parametrize(
    "error", [ConnectionError("none runs\nmore"), RuntimeError("none runs"), ValueError("none runs")]
)
def test_where_no_cluster_can_be_joined_the_remedy_is_one_for_clusters(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def init(**kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(
        PruningError, match=r"joined at --address auto \(none runs\); start one with 'ray start --head'"
    ):
        connect("auto")


@pytest.mark.parametrize("host_and_port", ["127.0.0.1:{free}", "127.0.0.1:99999", "no.such.host.invalid:6379"])
def test_an_address_where_nobody_listens_is_refused_before_ray_looks_for_it(
    monkeypatch: pytest.MonkeyPatch, host_and_port: str
) -> None:
    monkeypatch.setattr(ray, "init", unexpected)
    address = host_and_port.format(free=free_ports(1)[0])
    with pytest.raises(PruningError, match=f"no Ray cluster can be joined at --address {address}"):
        connect(address)
