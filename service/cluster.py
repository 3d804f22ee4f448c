"""Every call to Ray that is not the declaration of a deployment. Thin: no policy and no arithmetic.

``serve.get_app_handle`` and ``serve.get_replica_context`` are not stable yet in Ray 2.60; they are used here alone.
"""

import asyncio
import logging
from typing import Any

import ray
import torch
from ray import serve
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pruning.errors import PruningError
from pruning.spec import PruneSpec
from pruning.variants import Manifest
from service.builder import VariantBuilder
from service.protocol import Desired, Refusal, ReplicaReport
from service.settings import Device
from service.sources import Sources

CONTROL_APP, MODEL_APP = "control", "model"

logger = logging.getLogger(__name__)


class RayControlLink:
    """A replica's line to the controller: one method call on its handle."""

    def __init__(self) -> None:
        """Find the controller at the first call. The handle finds whatever takes its place by itself."""
        self._finding: asyncio.Future[Any] | None = None

    async def sync(self, report: ReplicaReport, known_version: int) -> Desired:
        """Return the desired state; raises whatever keeps the controller from answering."""
        handle = await self._found()
        desired: Desired = await handle.sync.remote(report, known_version)
        return desired

    async def _found(self) -> Any:
        """Return the controller's handle.

        Serve waits for its own controller to look a name up, for as long as that one takes to restart: in a thread,
        so that requests go on being answered, and in one at a time, however often the caller loses patience.
        """
        if self._finding is None:
            self._finding = asyncio.ensure_future(asyncio.to_thread(serve.get_app_handle, CONTROL_APP))
        try:
            return await asyncio.shield(self._finding)
        except Exception:  # it is not there yet
            self._finding = None
            raise


class RayBuilder:
    """A ``VariantBuilder`` in an actor of its own, started anew if its process dies or its build is cancelled."""

    def __init__(self, sources: Sources, threads: int, keep_variants: int) -> None:
        """Start the process; it opens its workbench in the background."""
        # Neither restarts nor retries by Ray, which tells the terminal of each.
        # Beside the controller: with another node it would be lost while this one waits for it.
        self._actor_class = ray.remote(num_cpus=0, scheduling_strategy=_this_node())(VariantBuilder)
        self._arguments = sources, threads, keep_variants
        self._retired = False
        self._start()

    def _start(self) -> None:
        self._actor = self._actor_class.remote(*self._arguments)
        self._actor.warm.remote()

    async def build(self, spec: PruneSpec, in_use: frozenset[str] | None = None) -> Manifest | Refusal:
        """Return the manifest of ``spec``'s variant, or why there is none."""
        try:
            outcome: Manifest | Refusal = await self._ask("build", spec, in_use)
        except asyncio.CancelledError:  # the process would go on, and the next build wait for it
            ray.kill(self._actor)
            if not self._retired:
                self._start()
            raise
        return outcome

    async def _ask(self, method: str, *arguments: Any) -> Any:
        """Return what the process answers; if it died, another is started and asked once more."""
        try:
            return await getattr(self._actor, method).remote(*arguments)
        except RayActorError as error:
            logger.warning("the builder's process died; starting another: %s", error)
            self._start()
            return await getattr(self._actor, method).remote(*arguments)

    def retire(self) -> None:
        """Start no process any more; the one that is there ends with this one, or with its build."""
        self._retired = True

    async def prepare(self, specs: list[PruneSpec]) -> list[Manifest]:
        """Calibrate if need be and return the ladder's manifests, building those that are missing.

        Raises:
            PruningError: a level cannot be built.
        """
        await self._ask("calibrate")
        manifests = []
        for spec in specs:
            outcome = await self.build(spec)
            if isinstance(outcome, Refusal):
                raise PruningError(outcome.message)
            manifests.append(outcome)
        await self._ask("cascade", manifests)
        return manifests


def cluster_gpus() -> float:
    """Return how many GPUs the cluster has at this moment; none where this process is connected to no cluster."""
    return float(ray.cluster_resources().get("GPU", 0.0)) if ray.is_initialized() else 0.0


def replica_id() -> str:
    """Return this replica's id, unique in the service."""
    return str(serve.get_replica_context().replica_id.unique_id)


def is_loopback(host: str) -> bool:
    """Tell whether nobody but this machine reaches what listens at ``host``."""
    return host == "localhost" or host.startswith("127.") or host == "::1"


def page_host(host: str) -> str:
    """Return where a metrics page listens: on loopback if the service does, else where other nodes reach this one."""
    return "127.0.0.1" if is_loopback(host) else str(ray.util.get_node_ip_address())


def _this_node() -> NodeAffinitySchedulingStrategy:
    """Return what keeps an actor on the node of this process."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def assigned_device(wanted: Device) -> torch.device:
    """Return the device that Ray assigned to this process, never one that it merely sees.

    Raises:
        RuntimeError: a GPU is wanted and none was assigned.
    """
    gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    if wanted is Device.CPU or (wanted is Device.AUTO and not gpus):
        return torch.device("cpu")
    if not gpus:
        raise RuntimeError("device=cuda, but Ray assigned no GPU to this replica; add GPUs to the cluster or use cpu")
    return torch.device("cuda", 0)
