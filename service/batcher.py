"""A token-budget batcher that pulls when the engine is idle.

There is no waiting timer: while a batch runs, requests gather; when it is done, the oldest ones that fit the token
budget run together. An idle engine therefore answers a lone request at once, and a busy one gets full batches.
"""

import asyncio
import itertools
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from service.deadlines import Deadline
from service.errors import InferenceFailed, NotReady, Overloaded, TooLarge

logger = logging.getLogger(__name__)

RATE_MEMORY = 0.9
"""Weight that each batch leaves to those before it in the measured drain rate."""


class Tokens(Protocol):
    """What can be queued: anything with token ids."""

    @property
    def ids(self) -> Sequence[int]:
        """Token ids of one sequence."""


S = TypeVar("S")
T = TypeVar("T", bound=Tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Generic[S]):
    """What one request gets back."""

    rows: Any
    """The slice of the batch's result that belongs to this request, in the order of its sequences."""
    snapshot: S
    """What the whole batch ran on."""
    queue_s: float
    """Seconds from the request's arrival to the start of its batch."""
    inference_s: float
    """Seconds that its batch ran."""


@dataclass(slots=True, eq=False)
class _Item(Generic[S, T]):
    """One waiting request."""

    sequences: Sequence[T]
    tokens: int
    deadline: Deadline | None
    future: asyncio.Future[Answered[S]]
    arrived: float = field(default_factory=time.perf_counter)

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.future.done() or (self.deadline is not None and self.deadline.passed)


class DrainRate:
    """Tokens that leave the queue in a second: a moving average over batches, weighted by their length."""

    def __init__(self) -> None:
        """Nothing is measured yet."""
        self._tokens = 0.0
        self._seconds = 0.0

    def record(self, tokens: int, seconds: float) -> None:
        """Count a finished batch."""
        self._tokens = RATE_MEMORY * self._tokens + tokens
        self._seconds = RATE_MEMORY * self._seconds + seconds

    def seconds_for(self, tokens: int) -> int:
        """Return the whole seconds, at least one, that ``tokens`` need at the measured rate."""
        return max(1, math.ceil(tokens * self._seconds / self._tokens)) if self._tokens else 1


class TokenBatcher(Generic[S, T]):
    """Runs requests in order of arrival, as many at once as the token budget holds.

    A request is never split, so every answer comes from one snapshot; a request beyond the budget runs alone.
    """

    def __init__(
        self,
        snapshot: Callable[[], S],
        run: Callable[[S, Sequence[T]], Any],
        *,
        max_batch_tokens: int,
        max_queue_tokens: int,
        executor: Executor,
        observe: Callable[[int, int], None] = lambda texts, tokens: None,
    ) -> None:
        """Prepare; nothing runs before ``start``.

        Args:
            snapshot: called on the event loop, once for each batch, when it forms.
            run: called in ``executor`` with the snapshot and the batch's sequences; returns a sliceable result with
                one row for each sequence, in their order.
            max_batch_tokens: budget of one batch.
            max_queue_tokens: bound of the queue; what has left it for a batch no longer counts.
            executor: runs one batch at a time.
            observe: told the number of texts and of tokens of each batch.
        """
        self._snapshot = snapshot
        self._run = run
        self._max_batch_tokens = max_batch_tokens
        self._max_queue_tokens = max_queue_tokens
        self._executor = executor
        self._observe = observe
        self._queue: OrderedDict[_Item[S, T], None] = OrderedDict()
        self._queue_tokens = 0
        self._rate = DrainRate()
        self._arrival = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._running = False
        self._draining = False
        self._worker: asyncio.Task[None] | None = None

    @property
    def queue_tokens(self) -> int:
        """Tokens that wait."""
        return self._queue_tokens

    @property
    def alive(self) -> bool:
        """Whether batches are being served."""
        return self._worker is not None and not self._worker.done()

    def start(self) -> None:
        """Begin to serve, on the running event loop."""
        self._worker = asyncio.get_running_loop().create_task(self._serve(), name="token-batcher")

    async def drain(self) -> None:
        """Refuse new requests and wait until the accepted ones are answered."""
        self._draining = True
        await self._idle.wait()

    async def stop(self) -> None:
        """Drain, then end the worker."""
        await self.drain()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])

    async def submit(self, sequences: Sequence[T], deadline: Deadline | None = None) -> Answered[S]:
        """Return the answer to one request. Cancelling the call takes the request out of the queue.

        So does its deadline; whoever calls must give up then, for there will be no answer.

        Raises:
            NotReady: the service is draining.
            TooLarge: the request alone is larger than the queue.
            Overloaded: there is no room for it now; says when to come back.
            InferenceFailed: the engine cannot answer this request.
        """
        tokens = sum(len(sequence.ids) for sequence in sequences)
        self._admit(tokens)
        item = _Item[S, T](sequences, tokens, deadline, asyncio.get_running_loop().create_future())
        with self._queued(item):
            return await item.future

    def _admit(self, tokens: int) -> None:
        if self._draining:
            raise NotReady("This replica is stopping; send the request again.", retry_after_s=1)
        if tokens > self._max_queue_tokens:
            raise TooLarge(
                f"The request has {tokens} tokens; at most {self._max_queue_tokens} can wait. Send fewer texts.",
                tokens=tokens,
                limit_tokens=self._max_queue_tokens,
            )
        if self._queue_tokens + tokens > self._max_queue_tokens:
            raise Overloaded(
                f"The queue is full: {self._queue_tokens} of {self._max_queue_tokens} tokens wait. Try again later.",
                retry_after_s=self._rate.seconds_for(self._queue_tokens),
            )

    @contextmanager
    def _queued(self, item: _Item[S, T]) -> Iterator[None]:
        """Hold ``item`` in the queue until it is taken for a batch or given up."""
        self._queue[item] = None
        self._queue_tokens += item.tokens
        self._idle.clear()
        self._arrival.set()
        try:
            yield
        finally:
            self._take(item)

    def _take(self, item: _Item[S, T]) -> None:
        """Remove ``item`` and its tokens from the queue, if it is still there."""
        if item in self._queue:
            del self._queue[item]
            self._queue_tokens -= item.tokens
            self._show_idle()

    async def _serve(self) -> None:
        while True:
            await self._arrival.wait()
            self._arrival.clear()
            with self._running_batches():
                while batch := self._form_batch():
                    await self._answer(batch)

    @contextmanager
    def _running_batches(self) -> Iterator[None]:
        """Count as busy, also while the queue is empty because everything in it is being run."""
        self._running = True
        try:
            yield
        finally:
            self._running = False
            self._show_idle()

    def _show_idle(self) -> None:
        if not self._queue and not self._running:
            self._idle.set()

    def _form_batch(self) -> list[_Item[S, T]]:
        """Take the oldest requests that fit the budget together; those that nobody waits for are dropped."""
        batch: list[_Item[S, T]] = []
        tokens = 0
        while self._queue:
            item = next(iter(self._queue))
            if item.given_up:
                self._take(item)
                continue
            if batch and tokens + item.tokens > self._max_batch_tokens:
                break
            self._take(item)
            batch.append(item)
            tokens += item.tokens
        return batch

    async def _answer(self, batch: list[_Item[S, T]]) -> None:
        """Run ``batch``; after an error run its requests one by one, so that only the guilty one fails."""
        try:
            await self._run_together(batch)
        except Exception as error:
            if len(batch) > 1:
                logger.warning("a batch of %d requests failed (%s); retrying them one by one", len(batch), error)
                for item in batch:
                    if not item.future.done():
                        await self._answer([item])
            elif not batch[0].future.done():
                logger.error("inference failed", exc_info=error)
                failure = InferenceFailed("The model could not answer this request; other requests are not affected.")
                failure.__cause__ = error
                batch[0].future.set_exception(failure)

    async def _run_together(self, batch: list[_Item[S, T]]) -> None:
        snapshot = self._snapshot()
        sequences = [sequence for item in batch for sequence in item.sequences]
        started = time.perf_counter()
        rows = await asyncio.get_running_loop().run_in_executor(self._executor, self._run, snapshot, sequences)
        inference_s = time.perf_counter() - started
        if len(rows) != len(sequences):
            raise RuntimeError(f"the engine gave {len(rows)} rows for {len(sequences)} sequences")
        tokens = sum(item.tokens for item in batch)
        self._rate.record(tokens, inference_s)
        self._observe(len(sequences), tokens)
        stops = itertools.accumulate(len(item.sequences) for item in batch)
        for item, stop in zip(batch, stops, strict=True):
            if not item.future.done():
                item.future.set_result(
                    Answered(
                        rows=rows[stop - len(item.sequences) : stop],
                        snapshot=snapshot,
                        queue_s=started - item.arrived,
                        inference_s=inference_s,
                    )
                )
