"""An event loop whose time passes only where nothing else can happen, and which ends at a step that the test names."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class Died(BaseException):
    """The process is gone; nothing of it runs on."""


class _Selector(selectors.SelectSelector):
    """Waits by setting the clock. Nothing here reads or writes sockets."""

    now = 0.0
    steps = 0
    last_step: int | None = None

    def select(self, timeout: float | None = None) -> list[Any]:
        self.steps += 1
        if self.steps == self.last_step:
            raise Died
        if timeout is None:
            raise AssertionError("everything waits for something that never happens")
        self.now += max(0.0, timeout)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Takes the same steps every time: one for each round of callbacks, so that every wait lies between two steps."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    @property
    def steps(self) -> int:
        return self._clock.steps

    def run(self, work: Coroutine[Any, Any, None], *, die_at: int | None = None) -> bool:
        """Run ``work`` to its end, or to a step; tell whether it died there. Its tasks are still there then."""
        self._clock.last_step = die_at
        try:
            self.run_until_complete(work)
        except Died:
            return True
        finally:
            self._clock.last_step = None
        return False

    def end(self) -> None:
        """Do away with whatever is left."""
        self.call_soon(self.stop)  # one round: work that was done just as it died has a word to stop still waiting
        self.run_forever()
        self.run_until_complete(_cancel_all())
        self.close()


async def _cancel_all() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def in_place_of_a_thread(work: Any, *arguments: Any, **keywords: Any) -> Any:
    """Stand in for ``asyncio.to_thread``: a wait before the work and one after it, both places to die at."""
    await asyncio.sleep(0)
    result = work(*arguments, **keywords)
    await asyncio.sleep(0)
    return result
