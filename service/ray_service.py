"""The Ray side of ``sparsedial serve``: connect, deploy both applications, drain and end them.

Ray is imported inside the methods alone: what ``service.fast_path`` sets must stand in the environment before.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from pruning.errors import PruningError
from service.ladder import Ladder
from service.limits import MAX_WAIT_S
from service.ray_connection import connect
from service.ray_output import ending
from service.settings import Settings
from service.sources import Sources

logger = logging.getLogger(__name__)

ANSWER_LIMIT_S = 60.0
"""Seconds that the front door may take to answer after both applications run."""


class RayService:
    """One running service on a cluster of its own, or on one that was there."""

    def __init__(self, settings: Settings, sources: Sources, ladder: Ladder) -> None:
        """Keep what to serve; nothing is started."""
        self._settings = settings
        self._sources = sources
        self._ladder = ladder
        self._deployed = False
        self._serving = False

    @property
    def _own_cluster(self) -> bool:
        return self._settings.address is None

    @property
    def _at_once(self) -> int:
        """How many replicas need room now: nothing is ever added to a cluster of our own, to another it may be."""
        return self._settings.most_replicas if self._own_cluster else self._settings.replicas

    @property
    def serving(self) -> bool:
        """Whether both applications run and may have been asked something."""
        return self._serving

    def connect(self) -> None:
        """Bring up a cluster, or join one.

        Raises:
            PruningError: there is none to join at the address that was given.
        """
        import ray.serve  # sets a level of its own

        logging.getLogger(ray.serve.__name__).setLevel(logging.ERROR)
        connect(self._settings.address)

    def deploy(self, url: str) -> None:
        """Start Serve, deploy control and model together, and return when both answer at ``url``.

        Raises:
            PruningError: the cluster serves applications of our names or lacks the nodes or GPUs, an application fails
                to start, or ``url`` does not answer.
        """
        import ray
        from ray import serve

        from service.app import control_application, model_application
        from service.cluster import CONTROL_APP, MODEL_APP

        settings = self._settings
        serve.start(
            http_options={
                "host": settings.host,
                "port": settings.port,
                "request_timeout_s": serve_limit_s(settings),
            }
        )
        if not self._own_cluster:
            _refuse_taken_names(str(settings.address), serve.status().applications)
        check_nodes(settings, ray.nodes(), at_once=self._at_once)
        total = ray.cluster_resources().get("GPU", 0)
        free = total if self._own_cluster else ray.available_resources().get("GPU", 0)
        num_gpus = gpu_share(settings, total, free, at_once=self._at_once)
        control = control_application(settings, self._sources, self._ladder)
        model = model_application(settings, self._sources, num_gpus=num_gpus)
        self._deployed = True
        try:
            serve.run_many(  # together, for a replica waits for the controller by itself
                [
                    serve.RunTarget(control, name=CONTROL_APP, route_prefix="/admin"),
                    serve.RunTarget(model, name=MODEL_APP, route_prefix="/"),
                ]
            )
        except RuntimeError as error:
            raise PruningError(
                f"the service could not start: {error} {_reasons(serve.status().applications)}"
            ) from error
        except KeyboardInterrupt:
            self._serving = _both_answer(url)  # clients may know it before Serve says so, which looks once a second
            raise
        self._serving = True
        _wait_until_answers(url)

    def stop(self, drain_s: float) -> None:
        """Let requests in flight be answered, for at most ``drain_s``; then end our applications and our cluster."""
        import ray

        if not ray.is_initialized():
            return
        with ending():
            asyncio.run(self._drain_then_end(drain_s))
            ray.shutdown()

    async def _drain_then_end(self, drain_s: float) -> None:
        """Drain and end in one event loop: a handle belongs to the loop that made it."""
        from ray import serve

        from service.cluster import CONTROL_APP, MODEL_APP

        if self._serving:
            try:
                async with asyncio.timeout(drain_s):
                    await _drain(serve.get_app_handle(CONTROL_APP))
            except TimeoutError:
                logger.warning("requests were still in flight after %g s", drain_s)
            except Exception as error:  # whatever is broken: the service is to end
                logger.warning("requests in flight could not be waited for: %s", error)
        if self._own_cluster:
            await serve.shutdown_async()
        elif self._deployed:
            for name in {MODEL_APP, CONTROL_APP} & set(serve.status().applications):
                await asyncio.to_thread(serve.delete, name)


def serve_limit_s(settings: Settings) -> float:
    """Return the seconds after which Serve itself cuts a request off with words of its own.

    The replicas and ``/admin?wait=`` end theirs earlier, in ours; Serve's one limit holds for both.
    """
    return max(settings.request_timeout_s, MAX_WAIT_S) + 10


def check_nodes(settings: Settings, nodes: Sequence[Mapping[str, Any]], *, at_once: int) -> None:
    """Return if ``nodes``, as Ray tells of them, have room ``at_once`` for so many replicas, and reach each other.

    Raises:
        PruningError: they have not; Ray would wait for them for ever.
    """
    from service.cluster import is_loopback

    alive = [node for node in nodes if node["Alive"]]
    computing = sum(node["Resources"].get("CPU", 0) > 0 for node in alive)
    on_one = settings.replicas_per_node
    if on_one is not None and on_one * computing < at_once:
        raise PruningError(
            f"{at_once} replicas, {on_one} on each machine (replicas_per_node), need {math.ceil(at_once / on_one)} "
            f"machines, and Ray sees {computing} with CPUs; lower --replicas or --max-replicas, raise "
            "--replicas-per-node, or join a cluster of more with --address"
        )
    machines = sorted({node["NodeManagerAddress"] for node in alive})
    if len(machines) > 1 and is_loopback(settings.host):
        raise PruningError(
            f"the cluster has several machines ({', '.join(machines)}), and at --host {settings.host} none is reached "
            "by the others; give an address that they share, such as 0.0.0.0, and close it to strangers"
        )


def gpu_share(settings: Settings, total: float, free: float, *, at_once: int) -> float:
    """Return the share of a GPU that each replica takes on a cluster that has ``total``; 0 on the CPU.

    Raises:
        PruningError: fewer are ``free`` than so many replicas need ``at_once``; Ray would wait for them for ever.
    """
    if not settings.wants_gpu(total):
        return 0
    on_one = math.floor(1 / settings.gpus_per_replica)
    needed = math.ceil(at_once / on_one)
    if free < needed:
        raise PruningError(
            f"--device {settings.device.value} with precision {', '.join(settings.precision)} needs {needed} GPUs for "
            f"{at_once} replicas, {on_one} on each, and of the {total:g} that Ray sees {free:g} are free; "
            "lower --replicas or --max-replicas, use --device cpu with float32 or bfloat16, or add GPUs to the cluster"
        )
    return settings.gpus_per_replica


def _refuse_taken_names(address: str, applications: Any) -> None:
    from service.cluster import CONTROL_APP, MODEL_APP

    taken = sorted({CONTROL_APP, MODEL_APP} & set(applications))
    if taken:
        raise PruningError(
            f"the cluster at {address} already serves an application named {' and '.join(taken)}; "
            "stop that service first, or join another cluster"
        )


def _reasons(applications: Any) -> str:
    """Return what Serve says of each application and deployment that does not run."""
    parts = [
        f"{name}: {part.message.strip()}"
        for application in applications.values()
        for name, part in application.deployments.items()
        if part.message
    ]
    return " | ".join(parts) or "Ray's logs, under /tmp/ray, say more."


def _wait_until_answers(url: str) -> None:
    """Return when both applications answer at ``url``: their routes reach the front door a moment after they run."""
    deadline = time.monotonic() + ANSWER_LIMIT_S
    while not _both_answer(url):
        if time.monotonic() > deadline:
            raise PruningError(
                f"both applications run, but {url} does not answer; if the cluster had a Serve of its own before, "
                "give its --host and --port"
            )
        time.sleep(0.05)


def _both_answer(url: str) -> bool:
    try:
        return all(
            httpx.get(url + path, timeout=5, trust_env=False).status_code == 200
            for path in ("/health", "/admin/health")
        )
    except httpx.TransportError:
        return False


async def _drain(control: Any) -> None:
    """Return once no replica has a request in flight."""
    await control.drain.remote()
    # A report may be a second old: two quiet looks in a row mean quiet.
    quiet = 0
    while quiet < 2:
        await asyncio.sleep(0.7)
        quiet = quiet + 1 if await control.inflight.remote() == 0 else 0
