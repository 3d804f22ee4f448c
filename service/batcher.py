"""A token-budget batcher that pulls when a lane is idle.

While batches run, requests gather; when one is done, the oldest ones that fit the token budget run together. An idle
engine therefore answers a lone request at once, and a busy one gets full batches. The only wait is for clients that
were answered a moment ago and are known to come back (``gathering.py``).
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic

from service.deadlines import Deadline
from service.errors import InferenceFailed, NotReady
from service.gathering import Gathering
from service.lanes import Lanes
from service.level_paces import LevelPaces
from service.load_meter import LoadMeter
from service.queued import Answered, Item, S, T
from service.room import Room
from service.schedule import Lane, Schedule
from service.token_queue import TokenQueue

logger = logging.getLogger(__name__)


class TokenBatcher(Generic[S, T]):
    """Runs requests in order of arrival, as many at once as the token budget holds.

    A request is never split, so every answer comes from one snapshot; a request beyond the budget runs alone. Requests
    that chose differently never share a batch; the oldest of all says whose turn it is.
    """

    def __init__(
        self,
        snapshot: Callable[[Any], S],
        run: Callable[[S, Sequence[T]], Any],
        *,
        level: Callable[[Any], object],
        max_batch_tokens: int,
        max_batch_s: float,
        room: Room,
        lanes: Lanes,
        meter: LoadMeter,
        observe: Callable[[S, Lane, Sequence[T]], None] = lambda snapshot, lane, sequences: None,
    ) -> None:
        """Prepare; nothing runs before ``start``.

        Args:
            snapshot: called on the event loop with the choice of its requests, once for each batch, when it forms.
            run: called in a thread of ``lanes``, in several at once, with the snapshot and the batch's sequences;
                returns a sliceable result with one row for each sequence, in their order.
            level: what the cost of a batch of a choice depends on, as of now; hashed by identity.
            max_batch_tokens: budget of one batch.
            max_batch_s: its bound in seconds, at the pace at which batches of the same level ran on the same lane.
            room: bounds the queue.
            lanes: where batches run.
            meter: told what comes, what is refused and what runs.
            observe: told what each batch ran on, where, and its sequences.
        """
        self._snapshot = snapshot
        self._run = run
        self._level = level
        self._max_batch_tokens = max_batch_tokens
        self._lanes = lanes
        self._meter = meter
        self._observe = observe
        self._schedule = Schedule(lanes.narrow_lanes)
        self._queue: TokenQueue[Item[S, T]] = TokenQueue()
        self._room = room
        self._paces = LevelPaces(max_batch_s)
        self._gathering = Gathering()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._worker: asyncio.Task[None] | None = None

    @property
    def queue_tokens(self) -> int:
        """Tokens that wait."""
        return self._queue.tokens

    @property
    def queue_s(self) -> float:
        """Seconds that they need at the rate at which the queue was seen to drain."""
        return self._room.rate.seconds(self._queue.tokens)

    @property
    def queue_limit_tokens(self) -> int:
        """Tokens beyond which nothing more may wait now."""
        return self._room.limit_tokens(self._quick_batch)

    @property
    def alive(self) -> bool:
        """Whether batches are being served."""
        return self._worker is not None and not self._worker.done()

    async def idle(self) -> None:
        """Return when nothing waits and nothing runs."""
        await self._idle.wait()

    def start(self) -> None:
        """Begin to serve, on the running event loop."""
        self._worker = asyncio.get_running_loop().create_task(self._serve(), name="token-batcher")

    async def drain(self) -> None:
        """Refuse new requests and wait until the accepted ones are answered."""
        self._draining = True
        await self.idle()

    async def stop(self) -> None:
        """Drain, then end the worker."""
        await self.drain()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])

    async def submit(
        self, sequences: Sequence[T], deadline: Deadline | None = None, choice: object = None
    ) -> Answered[S]:
        """Return the answer to one request, which shares batches with those of its ``choice`` alone.

        Cancelling the call takes the request out of the queue. So does its deadline; whoever calls must give up then,
        for there will be no answer.

        Raises:
            NotReady: the service is draining.
            TooLarge: the request alone is larger than the queue.
            Overloaded: there is no room for it now; says when to come back.
            InferenceFailed: the engine cannot answer this request.
        """
        tokens = sum(len(sequence.ids) for sequence in sequences)
        self._room.check_size(tokens)
        self.check_room(tokens)
        item = Item[S, T](sequences, tokens, choice, deadline, asyncio.get_running_loop().create_future())
        with self._queued(item):
            return await item.future

    def check_room(self, tokens: int = 0) -> None:
        """Return if a request of ``tokens`` could wait now; of 0, if a small one could.

        Raises:
            NotReady: the service is draining.
            Overloaded: there is no room for it now; says when to come back.
        """
        if self._draining:
            raise NotReady("This replica is stopping; send the request again.", retry_after_s=1)
        self._room.check(self._queue.tokens, tokens, self._quick_batch)

    @property
    def _quick_batch(self) -> int:
        """Tokens of the largest batch of the usual level that takes no longer than it should."""
        level = self._level(None)
        return max(self._paces.tokens(level, lane) for lane in Lane)

    @contextmanager
    def _queued(self, item: Item[S, T]) -> Iterator[None]:
        """Hold ``item`` in the queue until it is taken for a batch or given up."""
        self._gathering.arrived()
        self._meter.accepted(item.tokens)
        self._queue.add(item)
        self._idle.clear()
        self._work.set()
        try:
            yield
        finally:
            self._queue.remove(item)
            self._show_idle()

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as batches:
            while True:
                await self._work.wait()
                self._work.clear()
                while (lane := self._schedule.next_lane(len(self._queue), self._queue.tokens)) is not None:
                    if self._waits_for_more():
                        break
                    if batch := self._form_batch(lane):
                        tokens = sum(item.tokens for item in batch)
                        self._schedule.begin(lane, tokens)
                        self._meter.began(self._schedule.share(lane))
                        batches.create_task(self._occupy(lane, batch, tokens))

    def _waits_for_more(self) -> bool:
        """Tell whether the next batch should wait for requests that are expected back; it is asked for again then."""
        if self._queue.tokens >= self._schedule.enough_tokens:
            return False
        left_s = self._gathering.seconds_left(time.perf_counter())
        if left_s > 0:
            asyncio.get_running_loop().call_later(left_s, self._work.set)
        return left_s > 0

    def _form_batch(self, lane: Lane) -> list[Item[S, T]]:
        """Take from the queue what ``lane`` should run next."""
        level = self._level(self._queue.next_choice)
        most = min(self._max_batch_tokens, self._paces.tokens(level, lane))
        return self._queue.take(self._schedule.budget(lane, self._queue.tokens, most))

    async def _occupy(self, lane: Lane, batch: list[Item[S, T]], tokens: int) -> None:
        """Answer ``batch`` on ``lane``, which is free again afterwards."""
        try:
            await self._answer(batch, lane)
        finally:
            self._schedule.end(lane, tokens)
            self._meter.ended(self._schedule.share(lane))
            self._work.set()
            self._show_idle()

    def _show_idle(self) -> None:
        if not self._queue and not self._schedule.running:
            self._idle.set()

    async def _answer(self, batch: list[Item[S, T]], lane: Lane) -> None:
        """Run ``batch``; after an error run its requests one by one, so that only the guilty one fails."""
        try:
            await self._run_together(batch, lane)
        except Exception as error:
            if len(batch) > 1:
                logger.warning("a batch of %d requests failed (%s); retrying them one by one", len(batch), error)
                for item in batch:
                    if not item.future.done():
                        await self._answer([item], lane)
            elif not batch[0].future.done():
                logger.error("inference failed", exc_info=error)
                failure = InferenceFailed("The model could not answer this request; other requests are not affected.")
                failure.__cause__ = error
                batch[0].future.set_exception(failure)

    async def _run_together(self, batch: list[Item[S, T]], lane: Lane) -> None:
        choice = batch[0].choice
        snapshot, level = self._snapshot(choice), self._level(choice)
        sequences = [sequence for item in batch for sequence in item.sequences]
        started = time.perf_counter()
        executor = self._lanes.executor(lane)
        rows = await asyncio.get_running_loop().run_in_executor(executor, self._run, snapshot, sequences)
        ended = time.perf_counter()
        if len(rows) != len(sequences):
            raise RuntimeError(f"the engine gave {len(rows)} rows for {len(sequences)} sequences")
        tokens = sum(item.tokens for item in batch)
        self._room.rate.record(tokens, batch[0].arrived, ended)
        self._meter.ran(tokens)
        self._paces.record(level, lane, tokens, ended - started)
        self._observe(snapshot, lane, sequences)
        self._gathering.answered(len(batch), ended - started, ended)
        stops = itertools.accumulate(len(item.sequences) for item in batch)
        for item, stop in zip(batch, stops, strict=True):
            if not item.future.done():
                item.future.set_result(
                    Answered(
                        rows=rows[stop - len(item.sequences) : stop],
                        snapshot=snapshot,
                        queue_s=started - item.arrived,
                        inference_s=ended - started,
                    )
                )
