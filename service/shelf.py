"""The engines of one replica: the live one, the one before it, the staged one, and the resident ladder."""

import asyncio
import gc
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from service.compute_threads import compute_alone
from service.engine import Engine, Live
from service.rehearsals import Rehearsals

logger = logging.getLogger(__name__)

LOADER_NICENESS = 5
LET_GO_DELAY_S = 2.0
"""Seconds given to batches in flight to be done with an engine that nothing else holds."""
REHEARSAL_S = 2.0
"""Seconds that rehearsals may keep a staged variant from being ready."""
BETWEEN_REHEARSALS_S = 0.1
"""Seconds between two rehearsals of loaded engines, which have time."""


class EngineShelf:
    """Engines by variant. A swap is one reference assignment; everything slow happens in the loader's own thread."""

    def __init__(self, load: Callable[[str], Engine], live: Live) -> None:
        """Start with one live engine; ``load`` returns a variant's engine, warmed up, or raises."""
        self._load = load
        self._live = live
        self._previous: Engine | None = None
        self._staged: Engine | None = None
        self._resident: dict[str, Engine] = {}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="engine-loader", initializer=_yield_to_traffic)
        self._reclaims: set[asyncio.Task[None]] = set()
        self._rehearsing: asyncio.Task[None] | None = None
        self.rehearsals = Rehearsals()

    def start(self) -> None:
        """Begin to rehearse with loaded engines what traffic brings, on the running event loop."""
        self._rehearsing = asyncio.get_running_loop().create_task(self._keep_rehearsed(), name="rehearsals")

    @property
    def live(self) -> Live:
        """What answers now."""
        return self._live

    @property
    def resident(self) -> tuple[Engine, ...]:
        """The levels that are kept loaded for whoever asks for one."""
        return tuple(self._resident.values())

    @property
    def loaded(self) -> dict[str, Engine]:
        """Every engine in memory by its variant."""
        held = [self._previous, self._staged, *self._resident.values(), self._live.engine]
        return {engine.manifest.variant_id: engine for engine in held if engine is not None}

    async def stage(self, variant_id: str) -> None:
        """Hold a variant ready beside the live one; raises what loading, warm-up or rehearsals raise."""
        staged = await self._get(variant_id)
        until_s = time.monotonic() + REHEARSAL_S
        while time.monotonic() < until_s and await self._rehearse_one(staged):
            pass
        dropped, self._staged = self._staged, staged
        self._release([dropped])

    def commit(self, generation: int, variant_id: str) -> None:
        """Let a loaded variant answer from the next batch on. The one it replaces stays loaded.

        Raises:
            KeyError: the variant is not loaded.
        """
        engine, before = self.loaded[variant_id], self._live.engine
        self._live = Live(generation, engine)
        if engine is not before:
            dropped, self._previous = self._previous, before
            self._staged = None if engine is self._staged else self._staged
            self._release([dropped])

    def drop_staged(self) -> bool:
        """Forget the staged variant, which stays loaded if it is live, previous or resident; tell if there was one."""
        dropped, self._staged = self._staged, None
        self._release([dropped])
        return dropped is not None

    async def keep_resident(self, variant_ids: tuple[str, ...]) -> None:
        """Hold these variants loaded, and let go of others that are not live, previous or staged.

        A variant that cannot be loaded keeps no other from being loaded.

        Raises:
            ExceptionGroup: what went wrong with each variant that could not be loaded.
        """
        failures: list[Exception] = []
        for variant_id in variant_ids:
            try:
                self._resident[variant_id] = await self._get(variant_id)
            except Exception as error:
                error.add_note(f"while loading the resident variant {variant_id}")
                failures.append(error)
        before = self._resident
        self._resident = {name: engine for name, engine in before.items() if name in variant_ids}
        self._release(before.values())
        if failures:
            raise ExceptionGroup("resident variants could not be loaded", failures)

    def close(self) -> None:
        """End the loader's thread once it is idle."""
        if self._rehearsing is not None:
            self._rehearsing.cancel()
        self._loader.shutdown(wait=False, cancel_futures=True)

    async def _get(self, variant_id: str) -> Engine:
        """Return a loaded engine, or load it, one at a time, in the loader's thread."""
        held = self.loaded.get(variant_id)
        if held is not None:
            return held
        return await asyncio.get_running_loop().run_in_executor(self._loader, self._load, variant_id)

    async def _rehearse_one(self, engine: Engine) -> bool:
        """Have ``engine`` run a batch of a kind that it has not met, in the loader's thread; tell if there was one.

        Then stay away for as long as that took, for the sake of traffic.
        """
        missing = self.rehearsals.missing(engine)
        if not missing:
            return False
        kind, lengths = missing[0]
        self.rehearsals.met(engine, kind)
        started_s = time.monotonic()
        await asyncio.get_running_loop().run_in_executor(self._loader, engine.rehearse, kind.lane, lengths)
        await asyncio.sleep(time.monotonic() - started_s)
        return True

    async def _keep_rehearsed(self) -> None:
        """Prepare whatever is loaded for what traffic brings, so that a swap to it finds it warm."""
        while True:
            for engine in self.loaded.values():
                try:
                    if engine is not self._live.engine:
                        await self._rehearse_one(engine)
                except Exception:  # whoever asks for this variant will hear of it
                    logger.warning("variant=%s failed in a rehearsal", engine.manifest.variant_id, exc_info=True)
                await asyncio.sleep(BETWEEN_REHEARSALS_S)

    def _release(self, engines: Iterable[Engine | None]) -> None:
        """See to it that the models of engines which nothing holds any more give their memory back."""
        held = self.loaded.values()
        dropped = [engine for engine in engines if engine is not None and engine not in held]
        if dropped:
            task = asyncio.get_running_loop().create_task(_let_go(dropped), name="let-go-engines")
            self._reclaims.add(task)
            task.add_done_callback(self._reclaims.discard)


async def _let_go(dropped: list[Engine]) -> None:
    """Free the engines of a list that is the last to hold them, in a thread: it takes up to a tenth of a second.

    Collect garbage only if counting references did not free the models: a full collection stops every thread for as
    long as it takes, and Ray freezes what the constructor made, so that the collector would not even look at a first
    model caught in a reference cycle.
    """
    models = [weakref.ref(engine.model) for engine in dropped]
    await asyncio.sleep(LET_GO_DELAY_S)
    await asyncio.to_thread(dropped.clear)
    if any(model() is not None for model in models):
        logger.warning("a model that was let go is still in memory; collecting garbage")
        await asyncio.to_thread(_collect_frozen)


def _collect_frozen() -> None:
    """Collect everything, what was frozen at start included, and freeze what is left."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _yield_to_traffic() -> None:
    """Let the loader's thread give way to those that answer requests."""
    compute_alone()
    if sys.platform == "linux":
        with suppress(OSError):  # a hint: where it is not allowed, loading competes as an equal
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOADER_NICENESS)
