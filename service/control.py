"""The control deployment: the controller, its admin routes and its metrics page in one process without a GPU."""

from dataclasses import dataclass

from fastapi import FastAPI

from pruning.frontier import frontier_rows
from pruning.scores import SCORERS
from pruning.variants import VariantStore
from service.admin import build_admin_api
from service.cluster import RayBuilder, page_host
from service.control_metrics import ControlMetrics
from service.controller import VariantController
from service.ladder import ladder_specs
from service.limits import ControlLimits
from service.metrics import serve_metrics
from service.protocol import Desired, ReplicaReport
from service.settings import Settings
from service.sources import Sources, admin_token
from service.state import STATE, StateFile

DEFAULT_ACCURACY_DROP = 0.05
"""The floor, where none is set: this much under the dense model's accuracy."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """The variants prepared ahead."""

    variant_ids: tuple[str, ...]
    """Dense first."""
    initial: str
    """Committed where nothing ever was."""


class Control:
    """Wires the controller together; all policy lives in its parts."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: Settings, sources: Sources, threads: int, ladder: Ladder | None
    ) -> None:
        """Take up the durable state. Without ``ladder``, calibrate and build it first."""
        builder = RayBuilder(sources, threads)
        if ladder is None:
            ladder = await self._prepare(builder, settings)
        store = VariantStore(sources.store)
        dense_accuracy = store.manifest(ladder.variant_ids[0]).evaluation.accuracy
        floor = dense_accuracy - DEFAULT_ACCURACY_DROP if settings.accuracy_floor is None else settings.accuracy_floor
        metrics = ControlMetrics()
        self._metrics_server, address = serve_metrics(metrics.registry, page_host(settings.host))
        self._controller = VariantController(
            limits=ControlLimits(accuracy_floor=floor),
            builder=builder,
            state_file=StateFile(sources.store / STATE),
            store=store,
            metrics=metrics,
            initial_variant=ladder.initial,
            ladder=ladder.variant_ids,
            metrics_address=address,
        )
        await self._controller.start()
        base_digest = store.manifest(ladder.variant_ids[0]).base_digest
        rows = frontier_rows(store, base_digest)
        metrics.set_levels([row for row in rows if row["variant"] in ladder.variant_ids])
        token, _ = admin_token(settings, sources.store)
        self._api = build_admin_api(
            lambda: self._controller, token, frontier=lambda: frontier_rows(store, base_digest), scorers=SCORERS
        )

    @staticmethod
    async def _prepare(builder: RayBuilder, settings: Settings) -> Ladder:
        specs = ladder_specs((*settings.levels, settings.sparsity), settings.scorer, settings.pattern)
        manifests = await builder.prepare(specs)
        initial = next(m for m in manifests if m.spec.sparsity == settings.sparsity)
        return Ladder(tuple(manifest.variant_id for manifest in manifests), initial.variant_id)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application that Serve puts behind ``/admin``."""
        return self._api

    async def sync(self, report: ReplicaReport, known_version: int) -> Desired:
        """Take a replica's report and return what is wanted of it."""
        return await self._controller.sync(report, known_version)

    async def drain(self) -> None:
        """Ask every replica to finish what is in flight and take nothing new."""
        await self._controller.drain()

    async def inflight(self) -> int:
        """Return the requests not yet answered, over all live replicas."""
        return self._controller.inflight()

    async def check_health(self) -> None:
        """Raise if the controller no longer keeps time."""
        if not self._controller.healthy():
            raise RuntimeError("the controller no longer keeps time")

    async def __del__(self) -> None:
        """Stop keeping time; a running operation is taken up at the next start."""
        await self._controller.stop()
        self._metrics_server.shutdown()
        self._metrics_server.server_close()
