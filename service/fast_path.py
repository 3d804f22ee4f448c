"""The Ray Serve settings that were measured to be fast, set by the product so that nobody needs to know them.

They must stand in the environment before Ray is imported, here and on every node. ``docs/architecture.md`` says what
each one is for.
"""

import os
import socket
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from service.settings import Ingress

COMMON = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
}


def set_environment(ingress: Ingress, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what is not set yet; a variable that the user has set stays as it is."""
    wanted = dict(COMMON)
    if ingress is Ingress.HAPROXY:
        folder = Path(tempfile.mkdtemp(prefix="sd-"))
        wanted |= HAPROXY | {
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        }
    for name, value in wanted.items():
        environment.setdefault(name, value)


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
