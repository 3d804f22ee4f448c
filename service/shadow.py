"""Shadow answers: a share of what was answered by others is answered by the dense model too, when nobody waits for it.

So the service knows, without labels, what the dial costs on the traffic that it has. Samples wait in a short queue, and
are dropped rather than kept for long: they are taken one at a time, each at a moment when no request waits or runs.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from pruning.tokenization import Encoded
from service.agreement import compared
from service.dial import Dial
from service.engine import Engine
from service.metrics import ReplicaMetrics
from service.tally_book import TallyBook

MOST_WAITING = 64
"""Samples that wait; of more, the oldest goes."""
MOST_TEXTS = 8
"""Texts of one request that are compared."""

logger = logging.getLogger(__name__)

Answer = Callable[[Sequence[Encoded], Engine], Awaitable[NDArray[Any]]]
"""Sequences and an engine -> its logits [n, C]; it takes its turn among requests."""


@dataclass(frozen=True, slots=True)
class _Sample:
    engine: Engine
    sequences: Sequence[Encoded]
    logits_BC: NDArray[Any]
    cascade_id: str | None


class Shadow:
    """The shadow answers of one replica; every method runs on the event loop."""

    def __init__(
        self,
        dial: Dial,
        book: TallyBook,
        metrics: ReplicaMetrics,
        *,
        answer: Answer,
        idle: Callable[[], Awaitable[None]],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Take samples from now on; none is answered before ``start``.

        Args:
            dial: gives the share that is sampled, and the dense model.
            book: counts what was compared.
            metrics: this replica's page.
            answer: has sequences answered by an engine.
            idle: returns when no request waits or runs.
            draw: a number in [0, 1) for each request.
        """
        self._dial = dial
        self._book = book
        self._metrics = metrics
        self._answer = answer
        self._idle = idle
        self._draw = draw
        self._waiting: deque[_Sample] = deque()
        self._work = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def offer(
        self,
        engine: Engine,
        sequences: Sequence[Encoded],
        logits_BC: NDArray[Any],
        cascade_id: str | None = None,
    ) -> None:
        """Take an answer as a sample, if its lot says so. The dense model is not compared with itself.

        A variant on trial is always compared, unless nothing is: its share of the requests is small and its time short.

        Args:
            engine: what answered; of a cascade its level.
            sequences: of every text.
            logits_BC: what the texts were answered with, in a cascade by whichever of both.
            cascade_id: of the cascade that answered; then it counts as that one's, and not as the level's.
        """
        share = self._dial.policy.shadow_fraction
        is_tried = cascade_id is None and engine.manifest.variant_id == self._dial.on_trial
        if self._draw() >= (1.0 if is_tried and share > 0.0 else share):
            return
        dense = self._dial.dense
        if dense is None or dense.manifest.variant_id == engine.manifest.variant_id:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self._metrics.shadow_dropped.labels("busy").inc()
        self._waiting.append(_Sample(engine, sequences[:MOST_TEXTS], logits_BC[:MOST_TEXTS], cascade_id))
        self._work.set()

    def start(self) -> None:
        """Begin to compare, on the running event loop."""
        self._worker = asyncio.get_running_loop().create_task(self._compare_all(), name="shadow")

    async def stop(self) -> None:
        """End; what waits is let go."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])

    async def _compare_all(self) -> None:
        while True:
            await self._work.wait()
            await self._idle()
            sample = self._waiting.popleft()
            if not self._waiting:
                self._work.clear()
            try:
                await self._compare(sample)
            except Exception as error:
                self._metrics.shadow_dropped.labels("failed").inc()
                logger.warning("a shadow answer failed: %s", error)

    async def _compare(self, sample: _Sample) -> None:
        dense = self._dial.dense
        if dense is None:
            self._metrics.shadow_dropped.labels("failed").inc()
            return
        dense_BC = await self._answer(sample.sequences, dense)
        lengths = [len(sequence.ids) for sequence in sample.sequences]
        slices = compared(sample.logits_BC, dense_BC, lengths, dense.labels)
        manifest = sample.engine.manifest
        self._book.compared(sample.cascade_id or manifest.variant_id, slices)
        self._metrics.saw_agreement(self._dial.level_of(manifest), slices, cascaded=sample.cascade_id is not None)
