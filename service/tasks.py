"""Background work with an owner: every task is kept alive until it ends, and ended when its owner stops."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Tasks:
    """The running tasks of one owner."""

    def __init__(self) -> None:
        """Begin with none."""
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work`` in the background of the running event loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def cancel(self) -> None:
        """Cancel whatever runs and wait until it has ended."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def finish(self) -> None:
        """Wait until whatever runs has ended by itself."""
        await asyncio.gather(*self._running, return_exceptions=True)


async def repeat(act: Callable[[], Awaitable[None]], pause_s: float, name: str) -> None:
    """Call ``act`` for ever, with pauses; a call that fails is logged under ``name``, and the next one follows."""
    while True:
        await asyncio.sleep(pause_s)
        try:
            await act()
        except Exception:
            logger.exception("%s failed; the next one follows", name)


async def happens(event: asyncio.Event, timeout_s: float) -> bool:
    """Return whether ``event`` is set within ``timeout_s``."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
    return event.is_set()
