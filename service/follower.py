"""The replica's half of a swap: asks the controller what is wanted, and brings the engines there.

Three loops. One asks, which is also the heartbeat, and commits the moment a loaded variant becomes the wanted one. The
second loads, one variant at a time, the most urgent first. The third tells a governor how the replica fares. None waits
for another, and none touches requests.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from pruning.errors import PruningError
from service.errors import NotReady
from service.fleet import CONTROL_ID
from service.keeping import Keeping
from service.newborn import ASK_AFRESH
from service.policy import Mode
from service.protocol import ControlLink, Desired, Door, EngineHolder, Peer, ReplicaReport, Staged
from service.tasks import Tasks, happens

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S = 2.0
"""A question that takes longer is asked again: twice the longest that the controller waits."""

FIRST_RETRY_S, LAST_RETRY_S = 0.05, 0.5
"""Pauses between failed questions; the last one is short of a lease, so that a restarted controller hears everyone."""

PATIENCE_S = 5.0
"""How long a starting follower waits for the controller's first word."""

TELL_S = 0.25
"""How often a governed replica reports, its questions apart: as often as the governor decides."""

NO_OPERATION = ""
"""Stands for the operation where a committed variant is staged: nobody waits for it."""


class Follower:
    """Keeps one replica's engines where the controller wants them."""

    def __init__(
        self,
        *,
        replica_id: str,
        metrics_address: str,
        link: ControlLink,
        holder: EngineHolder,
        door: Door,
        max_lag_s: float = 120.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the parts; ``start`` begins.

        Args:
            replica_id: unique among the live replicas.
            metrics_address: ``host:port`` of this replica's metrics page.
            link: line to the controller.
            holder: the engines.
            door: the requests.
            max_lag_s: seconds behind the controller, by its own word, after which the replica is not healthy.
            monotonic: for tests.
        """
        self._replica_id = replica_id
        self._metrics_address = metrics_address
        self._link = link
        self._holder = holder
        self._door = door
        self._max_lag_s = max_lag_s
        self._monotonic = monotonic
        self._desired: Desired | None = None
        self._behind_since: float | None = None
        """When the controller first said that it wants a generation that still does not answer here."""
        self._lag_s = 0.0
        """How long that was so when the controller last said it: its silence adds nothing."""
        self._staged: Staged | None = None
        """What the holder holds staged."""
        self._failed: tuple[str, str] | None = None
        """The operation that could not be prepared here, and why."""
        self._keeping = Keeping(holder, replica_id)
        self._is_settled = False
        """Whether this replica counts among those that answer."""
        self._hears = False
        """Whether the controller answered the last question."""
        self._news = asyncio.Event()
        self._heard = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._idle = asyncio.Event()
        """Whether everything that is wanted is loaded, or cannot be."""
        self._tasks = Tasks()
        self._loops: tuple[asyncio.Task[None], ...] = ()

    async def start(self, timeout_s: float, patience_s: float = PATIENCE_S) -> bool:
        """Begin to follow; return once this replica is on the committed generation.

        Returns:
            True; or False if the controller says nothing within ``patience_s``: what this replica was born with
            answers then, until the controller is back.

        Raises:
            NotReady: the controller wants a generation that was not reached within ``timeout_s``; the follower has
                stopped.
        """
        self._loops = tuple(self._tasks.spawn(self._watch(loop)) for loop in (self._ask(), self._load(), self._tell()))
        if not await happens(self._heard, patience_s):
            logger.warning("replica=%s: the controller is away; not waiting for it", self._replica_id)
            return False
        if not await happens(self._caught_up, timeout_s):
            await self.stop()
            raise NotReady(f"Replica {self._replica_id} did not reach the committed variant in time.")
        return True

    async def settle(self, timeout_s: float) -> None:
        """Return once the ladder is loaded, so that every level answers here as it does elsewhere.

        At once where no other replica answers meanwhile, or nobody says so; after ``timeout_s`` in any case. From then
        on this replica is one of those whose load a governor looks at.
        """
        others = [peer for peer in self.peers if peer.replica_id not in (self._replica_id, CONTROL_ID)]
        if others and not await happens(self._idle, timeout_s):
            logger.warning("replica=%s: the ladder was not loaded in time; going without", self._replica_id)
        self._is_settled = True

    async def stop(self) -> None:
        """Follow no longer; what answers goes on answering."""
        await self._tasks.cancel()

    def healthy(self) -> bool:
        """Tell whether all loops run and the replica is not too long behind a controller that it hears.

        A silent controller makes no replica unhealthy: what was committed goes on answering without it.
        """
        running = bool(self._loops) and not any(loop.done() for loop in self._loops)
        return running and self._lag_s <= self._max_lag_s

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Return the live processes with a metrics page, as last told."""
        return self._desired.peers if self._desired else ()

    async def _watch(self, loop: Coroutine[Any, Any, None]) -> None:
        """Run a loop that should never end; say so in the log if it does."""
        try:
            await loop
        except Exception:
            logger.exception("replica=%s follows the controller no longer", self._replica_id)
            raise

    async def _ask(self) -> None:
        """Report and ask, for ever; the controller's absence is waited out."""
        pause_s = FIRST_RETRY_S
        while True:
            known_version = self._desired.version if self._desired else ASK_AFRESH
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    desired = await self._link.sync(self._report(), known_version)
            except Exception as error:
                self._hears = False
                if pause_s == FIRST_RETRY_S:
                    logger.warning("replica=%s: no answer from the controller: %r", self._replica_id, error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LAST_RETRY_S)
            else:
                pause_s, self._hears = FIRST_RETRY_S, True
                self._take(desired)

    def _take(self, desired: Desired) -> None:
        """Obey at once what needs no loading; leave the rest to the other loop."""
        before, self._desired = self._desired, desired
        if desired.draining and not (before and before.draining):
            self._door.start_draining()
        self._holder.heed(desired.policy, cascade_off=desired.cascade_off, distrusted=desired.distrusted)
        if desired.trial != (before.trial if before else None):
            self._holder.try_out(desired.trial)
        self._commit_if_loaded(desired)
        self._heard.set()
        if desired.generation <= self._holder.generation:
            self._behind_since, self._lag_s = None, 0.0
            self._caught_up.set()
        else:
            now = self._monotonic()
            self._behind_since = now if self._behind_since is None else self._behind_since
            self._lag_s = now - self._behind_since
        if desired != before:
            self._keeping.try_all_again()
            self._idle.clear()
            self._news.set()

    def _commit_if_loaded(self, desired: Desired) -> None:
        """Let the wanted variant answer if it is loaded; never go back to an older generation."""
        if desired.generation <= self._holder.generation or desired.variant_id not in self._loaded():
            return
        self._holder.commit(desired.generation, desired.variant_id)
        if self._staged is not None and self._staged.variant_id == desired.variant_id:
            self._staged = None
        logger.info("replica=%s generation=%d variant=%s", self._replica_id, desired.generation, desired.variant_id)

    async def _load(self) -> None:
        """Load whatever is wanted and missing, whenever the wishes change."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._desired is not None and await self._load_next(self._desired):
                pass
            self._idle.set()

    async def _tell(self) -> None:
        """Say every moment how the replica fares, while a governor wants to know and the controller is there."""
        while True:
            await asyncio.sleep(TELL_S)
            if self._hears and self._desired is not None and self._desired.policy.mode is Mode.AUTO:
                await self._report_now()

    async def _load_next(self, desired: Desired) -> bool:
        """Take the most urgent step towards ``desired``; tell whether there was one."""
        if desired.generation > self._holder.generation:
            await self._catch_up(desired)
        elif desired.staged is not None and not self._answered(desired.staged):
            await self._prepare(desired.staged)
        elif desired.staged is None and self._staged is not None:
            self._holder.drop_staged()
            self._staged = None
        else:
            return await self._keeping.step(desired)
        return True

    async def _catch_up(self, desired: Desired) -> None:
        """Load the committed variant, which this replica was not there to prepare, and let it answer."""
        self._staged = None
        try:
            await self._holder.stage(desired.variant_id)
        except Exception:
            logger.exception("replica=%s: cannot load the committed variant; trying again", self._replica_id)
            await asyncio.sleep(LAST_RETRY_S)
            return
        self._staged = Staged(operation_id=NO_OPERATION, variant_id=desired.variant_id)
        self._commit_if_loaded(desired)
        self._caught_up.set()

    async def _prepare(self, staged: Staged) -> None:
        """Stage a variant for an operation, and tell the controller at once how that went."""
        self._staged = None
        try:
            await self._holder.stage(staged.variant_id)
        except Exception as error:
            logger.exception("replica=%s operation=%s: cannot prepare", self._replica_id, staged.operation_id)
            self._failed = (staged.operation_id, _public_words(error, staged.variant_id))
        else:
            self._staged = staged
        if self._desired is not None:
            self._commit_if_loaded(self._desired)
        await self._report_now()

    async def _report_now(self) -> None:
        """Report without waiting for the question under way; that one gets the answer, for it has the older version."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._link.sync(self._report(), ASK_AFRESH)
        except Exception as error:
            logger.info("replica=%s: the next question will report instead: %r", self._replica_id, error)

    def _answered(self, staged: Staged) -> bool:
        """Tell whether the controller's wish to stage was met or has failed here."""
        return self._staged == staged or (self._failed is not None and self._failed[0] == staged.operation_id)

    def _loaded(self) -> set[str]:
        """Return the variants that a commit would find loaded."""
        staged = {self._staged.variant_id} if self._staged else set()
        return {self._holder.variant_id, *self._keeping.kept, *staged}

    def _report(self) -> ReplicaReport:
        failed_operation, failure = self._failed or (None, None)
        return ReplicaReport(
            replica_id=self._replica_id,
            generation=self._holder.generation,
            variant_id=self._holder.variant_id,
            prepared_operation=(self._staged.operation_id or None) if self._staged else None,
            failed_operation=failed_operation,
            failure=failure,
            metrics_address=self._metrics_address,
            inflight=self._door.inflight,
            load=self._door.load() if self._is_settled else None,
            tallies=self._door.tallies,
        )


def _public_words(error: Exception, variant_id: str) -> str:
    """Return what an operator may read of ``error``; the rest is in the log."""
    if isinstance(error, PruningError):
        return str(error)
    return f"variant {variant_id} could not be loaded ({type(error).__name__}); the replica's log says why"
