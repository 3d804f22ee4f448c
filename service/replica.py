"""One model replica: HTTP, tokenizer, batcher and engine in one process, following the controller."""

import asyncio
import logging

from fastapi import FastAPI

from pruning.cascades import read_cascades
from pruning.encoder import load_base_model
from pruning.tokenization import TextTokenizer
from pruning.variants import VariantStore
from service.answer_headers import IdLeftToServer
from service.cluster import RayControlLink, assigned_device, page_host, replica_id
from service.compute_threads import compute_alone, cores_each
from service.engine import Live
from service.engine_choice import EngineLoader
from service.feedback import FeedbackDesk
from service.follower import Follower
from service.garbage import collect_seldom
from service.info import ModelCard
from service.ingress import build_inference_api
from service.internal_pages import InternalPages, peer_key
from service.metrics import ReplicaMetrics
from service.newborn import born_on, check_still_committed
from service.protocol import Peer
from service.runtime import InferenceRuntime
from service.served import require_served
from service.settings import Settings
from service.shelf import EngineShelf
from service.sources import Sources, admin_token
from service.state import STATE, StateFile
from service.torch_engine import SharedBase
from service.version import VERSION

CATCH_UP_TIMEOUT_S = 60.0
"""How long a newborn replica may take to the generation that the controller wants, once it has loaded its first."""
LADDER_TIMEOUT_S = 120.0
"""How long it may take to load the ladder while other replicas answer."""

logger = logging.getLogger(__name__)


class ModelReplica:
    """Wires one replica together; all policy lives in its parts."""

    async def __init__(self, settings: Settings, sources: Sources) -> None:  # type: ignore[misc]  # Serve awaits it
        """Come up on the committed variant, with the whole ladder where others answer; then Serve sends requests here.

        Where the store never held a committed variant, that takes as long as the controller needs to make one.
        """
        threads = settings.threads or cores_each(settings.most_on_node)
        compute_alone()
        collect_seldom()
        self._name = replica_id()
        device = assigned_device(settings.device)
        base = await asyncio.to_thread(load_base_model, sources.model)
        require_served(base)
        load = EngineLoader(SharedBase(base, device), VariantStore(sources.store), settings, threads)
        metrics = ReplicaMetrics(VERSION)
        token, _ = admin_token(settings, sources.store)
        self._pages = InternalPages(metrics.registry, page_host(settings.host), peer_key(token))
        address = self._pages.address
        link = RayControlLink()
        state_file = StateFile(sources.store / STATE)
        generation, variant_id = await born_on(link, state_file, replica_id=self._name, metrics_address=address)
        shelf = EngineShelf(load, Live(generation, await asyncio.to_thread(load, variant_id)))
        self._runtime = InferenceRuntime(
            shelf,
            TextTokenizer.load(sources.model),
            metrics,
            settings,
            replica_id=self._name,
            threads=threads,
            cascades=await asyncio.to_thread(read_cascades, sources.store),
            peers=lambda: self._peers(),
        )
        self._follower = Follower(
            replica_id=self._name,
            metrics_address=address,
            link=link,
            holder=self._runtime.dial,
            door=self._runtime,
        )
        self._feedback = FeedbackDesk(
            self._runtime.answers, replica_id=self._name, peers=lambda: self._peers(), key=peer_key(token)
        )
        self._pages.feedback = self._feedback.for_peers(asyncio.get_running_loop())
        self._runtime.start()
        if not await self._follower.start(CATCH_UP_TIMEOUT_S):
            await check_still_committed(state_file, self._runtime.dial.generation)
        await self._follower.settle(LADDER_TIMEOUT_S)
        logger.info("replica=%s generation=%d device=%s", self._name, self._runtime.dial.generation, device)
        card = ModelCard(model_id=settings.model, digest=base.digest, version=VERSION, threads=threads)
        api_key = settings.api_key.get_secret_value() if settings.api_key else None
        self._api = build_inference_api(self._runtime, self._feedback, settings, card, api_key)
        self._api.add_middleware(IdLeftToServer)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application that Serve puts behind its ingress."""
        return self._api

    def _peers(self) -> tuple[Peer, ...]:
        return self._follower.peers

    async def check_health(self) -> None:
        """Raise if this replica no longer follows the controller or no longer runs batches."""
        if not self._follower.healthy():
            raise RuntimeError(f"replica {self._name} no longer follows the controller")
        if not self._runtime.serving:
            raise RuntimeError(f"replica {self._name} no longer runs batches")

    async def __del__(self) -> None:
        """Answer what is in flight, then let go of threads, loops and the metrics port."""
        await self._follower.stop()
        await self._runtime.stop()
        await self._feedback.close()
        self._pages.close()
