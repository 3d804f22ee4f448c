"""The rollout made durable: a new state is on disk before it is in memory, and in memory before anyone hears of it."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from service.errors import NotReady
from service.events import Action, Broken, Event
from service.operations import Cause, RolloutState
from service.rollout import advance
from service.state import StateFile, StateUnwritable
from service.tasks import Tasks

logger = logging.getLogger(__name__)

EventFor = Callable[[RolloutState], Event | None]
"""Makes the event out of the state that it will meet; None for none."""


class DurableRollout:
    """One state machine and its file. Transitions happen one at a time, whole, even if their caller goes away."""

    def __init__(self, file: StateFile, act: Callable[[tuple[Action, ...]], None], wall: Callable[[], float]) -> None:
        """Use ``file``.

        Args:
            file: where the state is kept.
            act: called after every transition, under the lock, with the actions to perform.
            wall: the time in Unix seconds.
        """
        self.changed = asyncio.Condition()
        """Notified after every change of state; its lock is held throughout a transition."""
        self._file = file
        self._act = act
        self._wall = wall
        self._state: RolloutState | None = None
        self._unwritten = False
        self._transitions = Tasks()

    @property
    def state(self) -> RolloutState:
        """Return the state.

        Raises:
            NotReady: it has not been read yet.
        """
        if self._state is None:
            raise NotReady("The controller is starting.", retry_after_s=1)
        return self._state

    async def begin(self, first: Callable[[], RolloutState], restarted: Callable[[RolloutState], Event]) -> None:
        """Read the state, or write the ``first`` one, and let the ``restarted`` event happen to it.

        A file that can be read but not written does not stop the service: what was committed is served.

        Raises:
            StateFileError: the file is damaged or cannot be read, or the first state cannot be written.
        """
        async with self.changed:
            state = await asyncio.to_thread(self._file.read)
            if state is None:
                state = first()
                await asyncio.to_thread(self._file.write, state)
            state, actions = advance(state, restarted(state))
            self._adopt(state, actions)
            self._unwritten = True
        await self.flush()

    async def apply(self, event_for: EventFor) -> tuple[Action, ...]:
        """Let an event happen; return the actions, which have been performed.

        Raises:
            StateUnwritable: nothing has changed.
            Conflict: nothing has changed; see ``service.rollout.advance``.
        """
        return await self._transitions.whole(self._transition(event_for, self._refuse))

    async def apply_or_end(self, event_for: EventFor) -> None:
        """Let an event happen; where its state cannot be written, end the running operation instead, if there is one.

        Without one nothing has changed, and whoever finds the event again tries again. That end is the one thing told
        before it is on disk: ``flush`` repeats the attempt. A controller that dies before it succeeds takes the
        operation up again when it comes back.
        """
        await self._transitions.whole(self._transition(event_for, self._end_running))

    async def flush(self) -> None:
        """Write what memory knows and the disk was not told for certain, if anything."""
        await self._transitions.whole(self._flush())

    async def finish(self) -> None:
        """Wait for transitions that are under way."""
        await self._transitions.finish()

    async def _transition(
        self, event_for: EventFor, unwritable: Callable[[StateUnwritable], None]
    ) -> tuple[Action, ...]:
        async with self.changed:
            event = event_for(self.state)
            if event is None:
                return ()
            state, actions = advance(self.state, event)
            if state is not self.state:
                try:
                    self._unwritten = not await asyncio.to_thread(self._file.write, state)
                except StateUnwritable as error:
                    unwritable(error)
                    return ()
                if self._unwritten:
                    logger.warning("%s is written, but its folder could not be synced; trying again", self._file.path)
            self._adopt(state, actions)
            return actions

    async def _flush(self) -> None:
        async with self.changed:
            if self._unwritten:
                with suppress(StateUnwritable):
                    self._unwritten = not await asyncio.to_thread(self._file.write, self.state)

    def _refuse(self, error: StateUnwritable) -> None:
        raise error

    def _end_running(self, error: StateUnwritable) -> None:
        running = self.state.operation
        if running is None:
            logger.error("nothing was changed: %s", error)
            return
        broken = Broken(operation_id=running.id, error=str(error), cause=Cause.STORAGE, now=self._wall())
        self._unwritten = True
        self._adopt(*advance(self.state, broken))

    def _adopt(self, state: RolloutState, actions: tuple[Action, ...]) -> None:
        changed = state is not self._state
        self._state = state
        self._act(actions)
        if changed:
            self.changed.notify_all()
