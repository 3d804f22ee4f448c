"""The control deployment: the controller, its admin routes and its metrics page in one process without a GPU."""

from functools import partial

from fastapi import FastAPI

from pruning.cascade_rows import cascade_rows
from pruning.frontier import frontier_rows
from pruning.scores import CHOICES
from pruning.variants import VariantStore
from service.admin import build_admin_api
from service.answer_headers import IdLeftToServer
from service.cluster import RayBuilder, page_host
from service.compute_threads import cores_each
from service.control_metrics import ControlMetrics
from service.controller import VariantController
from service.errors import NotReady
from service.internal_pages import InternalPages
from service.ladder import Ladder, specs_of
from service.limits import ControlLimits
from service.policy_desk import PolicyDesk
from service.protocol import Desired, ReplicaReport
from service.settings import Settings
from service.sources import Sources, admin_token
from service.state import STATE, StateFile
from service.tenure import Tenure


class Control:
    """Wires the controller together; all policy lives in its parts."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: Settings, sources: Sources, ladder: Ladder | None
    ) -> None:
        """Take up the durable state.

        Without ``ladder`` nobody has prepared the store or locked it: calibrate and build the ladder first, which
        takes minutes, then hold the store's lock, or stand by while another service does.
        """
        self._builder = builder = RayBuilder(sources, cores_each(1), settings.keep_variants)
        launched = ladder is not None
        store = VariantStore(sources.store)
        if ladder is None:
            ladder = Ladder.of(await builder.prepare(specs_of(settings)), store, settings)
        dense = store.manifest(ladder.variant_ids[0])
        metrics = ControlMetrics()
        self._pages = InternalPages(metrics.registry, page_host(settings.host))
        self._controller = VariantController(
            limits=ControlLimits(),
            desk=PolicyDesk.of(store, ladder.variant_ids, settings.accuracy_floor),
            builder=builder,
            state_file=StateFile(sources.store / STATE),
            store=store,
            metrics=metrics,
            initial_variant=ladder.initial,
            ladder=ladder.variant_ids,
            metrics_address=self._pages.address,
        )
        self._tenure = Tenure(sources.store, self._controller.start)
        if launched:  # the launcher holds the lock for as long as the service runs
            await self._controller.start()
        else:
            await self._tenure.take()
        rows = frontier_rows(store, dense.base_digest)
        metrics.set_levels([row for row in rows if row["variant"] in ladder.variant_ids])
        token, _ = admin_token(settings, sources.store)
        self._api = build_admin_api(
            self._in_charge,
            token,
            frontier=lambda: frontier_rows(store, dense.base_digest),
            cascades=partial(cascade_rows, store),
            scorers=CHOICES,
            usual={
                "scorer": settings.scorer,
                "pattern": settings.pattern,
                "precision": settings.precision[0].value,
                "rounds": settings.rounds,
                **({"recover": settings.recover.value} if settings.recover else {}),
            },
        )
        self._api.add_middleware(IdLeftToServer)

    def _in_charge(self) -> VariantController:
        """Return the controller.

        Raises:
            NotReady: another service holds the store.
        """
        if self._tenure.waiting:
            raise NotReady(
                "Another service controls this store; this one takes over when that one ends.", retry_after_s=5
            )
        return self._controller

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application that Serve puts behind ``/admin``."""
        return self._api

    async def sync(self, report: ReplicaReport, known_version: int) -> Desired:
        """Take a replica's report and return what is wanted of it.

        Raises:
            NotReady: the controller is starting, or another service holds the store.
        """
        return await self._in_charge().sync(report, known_version)

    async def drain(self) -> None:
        """Ask every replica to finish what is in flight and take nothing new."""
        await self._controller.drain()

    async def inflight(self) -> int:
        """Return the requests not yet answered, over all live replicas."""
        return self._controller.view.inflight()

    async def check_health(self) -> None:
        """Raise if the controller no longer keeps time, or could not take over."""
        self._tenure.check()
        if not self._tenure.waiting and not self._controller.healthy():
            raise RuntimeError("the controller no longer keeps time")

    async def __del__(self) -> None:
        """Stop keeping time; a running operation is taken up at the next start."""
        self._builder.retire()
        await self._controller.stop()
        await self._tenure.end()
        self._pages.close()
