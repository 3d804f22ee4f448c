"""The Ray settings that were measured to be fast, or keep quiet, set by the product so that nobody needs to know them.

They must stand in the environment before Ray is imported, here and on every node. ``docs/architecture.md`` says what
each one is for.
"""

import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from service.haproxy_command import haproxy_command
from service.settings import Ingress

LOOPBACK = "lo"
"""Linux's name of the loopback interface."""
SOCKET_LIMIT = 96
"""Longest path of a socket: 107 bytes, less what HAProxy appends while it binds."""
RAY_FOLDER = 56
"""Length of the node id that Ray puts between the folder and the name of HAProxy's socket."""

RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
COMMON = RAY | {
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
}
HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
}


@contextmanager
def socket_folder() -> Iterator[Path]:
    """Give the block a folder of its own, under a path short enough for HAProxy's socket; it vanishes afterwards."""
    parent = tempfile.gettempdir()
    longest = len(f"{parent}/sd-12345678/") + RAY_FOLDER + len("/admin.sock")
    with tempfile.TemporaryDirectory(
        prefix="sd-", dir=parent if longest <= SOCKET_LIMIT else "/tmp", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def set_environment(
    ingress: Ingress,
    folder: Path,
    *,
    replicas: int,
    own_cluster: bool,
    environment: MutableMapping[str, str] = os.environ,
) -> None:
    """Set what is not set yet; a variable that the user has set stays as it is.

    Args:
        ingress: the fast path, or Ray Serve's default one.
        folder: where HAProxy keeps its files, from ``socket_folder``.
        replicas: how many will listen on ports of their own.
        own_cluster: whether Ray is started here; its ports then ask for a token that nobody else knows.
        environment: for tests.
    """
    wanted = COMMON | (_own_token() if own_cluster else {})
    if ingress is Ingress.HAPROXY:
        wanted |= _own_ports(replicas)
        wanted |= HAPROXY | {
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(haproxy_command(folder)),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        }
    for name, value in wanted.items():
        environment.setdefault(name, value)


def set_training_environment(*, own_cluster: bool, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set, for a training on several workers, what is not set yet; on a cluster of our own they talk on loopback."""
    wanted = dict(RAY)
    if own_cluster:
        wanted |= _own_token()
        if LOOPBACK in {name for _, name in socket.if_nameindex()}:
            wanted["GLOO_SOCKET_IFNAME"] = LOOPBACK
    for name, value in wanted.items():
        environment.setdefault(name, value)


def _own_token() -> dict[str, str]:
    """Return what makes the ports of a cluster of our own ask for a token that nobody else knows."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _own_ports(replicas: int) -> dict[str, str]:
    """Return ports, for replicas, for the proxy behind HAProxy and for its pages, that nobody on this machine uses.

    Every Ray cluster begins at the same ones, and their servers share them without an error (SO_REUSEPORT): two
    services on one machine would answer each other's requests. All lie below those that Linux gives to whoever asks
    for any, for such a one may be taken before HAProxy binds it.
    """
    each = 2 * (replicas + 1) + 16  # the controller's replica, and room while replicas are replaced
    while True:
        start = secrets.choice(range(20_000, 32_000 - 2 * each - 4, 100))
        proxy = start + 2 * each
        if all(_is_free(port) for port in (*range(start, start + replicas + 2), *range(proxy, proxy + 4))):
            return {
                "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(start),
                "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(start + each - 1),
                "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(start + each),
                "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(proxy - 1),
                "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(proxy),
                "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(proxy + 1),
                "RAY_SERVE_HAPROXY_STATS_PORT": str(proxy + 2),
                "RAY_SERVE_HAPROXY_METRICS_PORT": str(proxy + 3),
            }


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def free_ports(count: int) -> list[int]:
    """Return different ports of the loopback interface that are free now."""
    with ExitStack() as held:  # until all are found, or the same one may be given twice
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
