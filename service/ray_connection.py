"""Bring up a Ray cluster of our own, or join one.

Ray is imported inside the functions alone: what ``service.fast_path`` sets must stand in the environment before.
"""

import logging
import socket

from pruning.errors import PruningError

OBJECT_STORE_BYTES = 200_000_000
"""Ray's shared memory: nothing large travels between our processes."""
JOIN_LIMIT_S = 5.0
"""Seconds that a cluster's address may take to accept a connection."""


def connect(address: str | None, *, cores: int | None = None) -> None:
    """Join the cluster at ``address``, or bring one up that has ``cores``: by default this machine's.

    Raises:
        PruningError: there is none to join at the address that was given.
    """
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    if address is not None:
        _join(address)
        return
    ray.init(
        address="local",
        num_cpus=cores,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
    )


def _join(address: str) -> None:
    """Join the cluster at ``address``: ``auto``, or host:port."""
    import ray

    try:
        host, _, port = address.rpartition(":")
        if host and "/" not in host and port.isdecimal():  # Ray would look for it for two minutes
            socket.create_connection((host, int(port)), JOIN_LIMIT_S).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise PruningError(
            f"no Ray cluster can be joined at --address {address} ({reason}); start one with 'ray start --head', give "
            "'auto' or the host:port of one, or leave --address out for a cluster of our own"
        ) from error
