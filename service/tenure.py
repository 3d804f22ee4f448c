"""The right to control a store: held by one service at a time, waited for by another that was started beside it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

from service.locks import StoreInUse, sole_service
from service.tasks import Tasks

logger = logging.getLogger(__name__)

RETRY_S = 1.0


class Tenure:
    """Begins the controller's work once the store is this process's alone."""

    def __init__(self, store: Path, begin: Callable[[], Awaitable[None]], retry_s: float = RETRY_S) -> None:
        """Keep the parts; ``begin`` is called once, when the store is held."""
        self._store = store
        self._begin = begin
        self._retry_s = retry_s
        self._held = ExitStack()
        self._tasks = Tasks()
        self._standby: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> bool:
        """Whether another service holds the store."""
        return self._standby is not None and not self._standby.done()

    async def take(self) -> None:
        """Begin now, or in the background as soon as the service that holds the store lets it go.

        Raises:
            StoreError: the store cannot be locked at all.
            Exception: whatever ``begin`` raises, if the store is free now.
        """
        try:
            self._held.enter_context(sole_service(self._store))
        except StoreInUse as error:
            logger.warning("standing by: %s", error)
            self._standby = self._tasks.spawn(self._stand_by())
        else:
            await self._begin()

    def check(self) -> None:
        """Return unless taking over has failed.

        Raises:
            Exception: what it failed with.
        """
        if self._standby is not None and self._standby.done():
            self._standby.result()

    async def end(self) -> None:
        """Let the store go."""
        await self._tasks.cancel()
        self._held.close()

    async def _stand_by(self) -> None:
        while True:
            await asyncio.sleep(self._retry_s)
            try:
                self._held.enter_context(sole_service(self._store))
            except StoreInUse:
                continue
            logger.warning("the store %s is free; taking over", self._store)
            await self._begin()
            return
