"""What a route calls: texts in, a finished answer out, every stage timed.

One request: check -> tokenize -> wait for a batch -> forward pass -> rank labels -> bytes and headers.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pruning.tokenization import Encoded, TextTokenizer
from service.answer_headers import TOTAL_TIME, milliseconds, variant_headers
from service.answer_memory import AnswerMemory
from service.batcher import TokenBatcher
from service.cascading import Known, counted_under
from service.classification import rank
from service.deadlines import Deadline
from service.dial import Dial
from service.engine import Engine, Live
from service.errors import DeadlineExceeded, InferenceFailed, NotReady
from service.escalation import Escalation, escalate
from service.inflight import Exchange, InFlight
from service.lanes import Lanes
from service.load import Load
from service.load_meter import LoadMeter
from service.metrics import ReplicaMetrics
from service.metrics_merge import PeerPages, merge_pages
from service.policy import Policy
from service.protocol import Peer
from service.queued import Answered
from service.room import room_under
from service.schedule import Lane
from service.schemas import Query
from service.settings import Settings
from service.shadow import Shadow
from service.shelf import EngineShelf
from service.tally import Tally
from service.tally_book import TallyBook
from service.text_limits import check_texts
from service.tokenizing import tokenized


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer: JSON bytes, and the headers that say what gave it and how long it took."""

    body: bytes
    headers: dict[str, str]


class InferenceRuntime:
    """The data plane of one replica. Implements ``Door``; every method runs on the event loop."""

    def __init__(
        self,
        shelf: EngineShelf,
        tokenizer: TextTokenizer,
        metrics: ReplicaMetrics,
        settings: Settings,
        *,
        replica_id: str,
        threads: int = 1,
        cascades: Known = MappingProxyType({}),
        peers: Callable[[], Sequence[Peer]] = lambda: (),
    ) -> None:
        """Put the parts together; nothing is answered before ``start``.

        Args:
            shelf: the engines, with the committed one live.
            tokenizer: of the same model.
            metrics: this replica's page.
            settings: limits and time-outs.
            replica_id: the ``replica`` label of this page.
            threads: cores that the replica computes on.
            cascades: calibrated ones by their level.
            peers: the live processes whose pages ``metrics_page`` merges; this one may be among them.
        """
        self._shelf = shelf
        self.dial = Dial(shelf, metrics, Policy(accuracy_floor=settings.accuracy_floor or 0.0), cascades)
        """What the follower turns."""
        self._tokenizer = tokenizer
        self._metrics = metrics
        self._settings = settings
        self._replica_id = replica_id
        self._peers = peers
        self._pages = PeerPages()
        self._meter = LoadMeter(on_gpu=not shelf.live.engine.side_by_side)
        self._lanes = Lanes.start(threads, side_by_side=shelf.live.engine.side_by_side)
        self._batcher = TokenBatcher[Live, Encoded](
            self.dial.snapshot,
            _predict,
            level=lambda engine: engine or shelf.live.engine,
            max_batch_tokens=settings.max_batch_tokens,
            max_batch_s=settings.max_batch_ms / 1e3,
            room=room_under(settings, lambda: self.dial.policy, self._meter),
            lanes=self._lanes,
            meter=self._meter,
            observe=self._observe_batch,
        )
        self._inflight = InFlight(metrics, self._meter)
        self._book = TallyBook()
        self.answers = AnswerMemory(self._book)
        """What was answered, for true labels that come back."""
        self._shadow = Shadow(self.dial, self._book, metrics, answer=self._answer_by, idle=self._batcher.idle)
        self._draining = False
        self._observe_stage = {
            stage: metrics.stage_duration.labels(stage).observe
            for stage in ("tokenization", "queue", "inference", "serialization")
        }
        metrics.watch(
            queue_tokens=lambda: self._batcher.queue_tokens,
            queue_limit_tokens=lambda: self._batcher.queue_limit_tokens,
            in_flight=lambda: self._inflight.count,
        )

    def check_ready(self) -> None:
        """Return if new requests are taken.

        Raises:
            NotReady: the replica is starting, or draining before a stop.
        """
        if self._draining:
            raise NotReady("This replica is stopping; send the request again.", retry_after_s=1)
        if not self._batcher.alive:
            raise NotReady("This replica is not serving batches yet.", retry_after_s=1)

    def check_room(self) -> None:
        """Return if a new request would be taken now, whatever it asks.

        Raises:
            NotReady: the replica is starting, or draining before a stop.
            Overloaded: the queue is full; says when to come back.
        """
        self.check_ready()
        self._batcher.check_room()

    def track(self, route: str) -> AbstractContextManager[Exchange]:
        """Count a request as in flight until its answer is sent, then record how it ended."""
        return self._inflight.track(route)

    async def classify(self, query: Query, deadline: Deadline | None = None, request_id: str | None = None) -> Answer:
        """Return the answer to ``query``, until ``deadline``, by default the service's own limit from now on.

        The answer is remembered under ``request_id``, so that true labels may come back for it. An answer of a cascade
        counts as that cascade's, compared with the dense model's too, and not as its level's; so does one that it owes.

        A request whose time is up leaves the queue, and no batch that forms then computes it.

        Raises:
            ServiceError: Invalid, TooLarge, Overloaded, NotReady, InferenceFailed or DeadlineExceeded.
        """
        started = time.perf_counter()
        deadline = deadline or Deadline.in_seconds(self._settings.request_timeout_s)
        check_texts(query.texts, self._settings)
        engine = self.dial.engine_for(query.wish)
        rule = self.dial.cascade_for(query.wish, engine)
        engine = rule.level if rule else engine
        try:
            async with asyncio.timeout_at(deadline.at):
                sequences = await tokenized(self._tokenizer, query, self._shelf.live.engine.max_length)
                encoded = time.perf_counter()
                self._book.begun(counted_under(rule, self.dial.snapshot(engine)))
                answered = await self._batcher.submit(sequences, deadline, engine)
        except InferenceFailed:
            self._book.failed(counted_under(rule, self.dial.snapshot(engine)))
            raise
        except TimeoutError:
            self._book.timed_out(counted_under(rule, self.dial.snapshot(engine)))
            raise DeadlineExceeded(f"No answer within {deadline}; the service is busy.") from None
        counted_as = counted_under(rule, answered.snapshot)
        escalation = cascade_id = None
        if rule is not None:
            escalation = await escalate(self._batcher.submit, answered, sequences, rule, deadline)
            answered, cascade_id = escalation.answered, rule.cascade.cascade_id
            self._metrics.saw_cascade(self.dial.level_of(rule.level.manifest), escalation.counts())
        ran = time.perf_counter()
        ranked = rank(answered.rows, answered.snapshot.engine.labels, query.ranking)
        if request_id is not None:
            self._remember(request_id, counted_as, answered)
        body = orjson.dumps(ranked if query.nested else ranked[0])
        finished = time.perf_counter()
        self._shadow.offer(answered.snapshot.engine, sequences, answered.rows, cascade_id)
        self._book.answered(counted_as, finished - started)
        self._observe_stage["tokenization"](encoded - started)
        self._observe_stage["queue"](answered.queue_s)
        self._observe_stage["inference"](answered.inference_s)
        self._observe_stage["serialization"](finished - ran)
        self._meter.computed(answered.queue_s + answered.inference_s)
        return Answer(body, self._headers(sequences, answered, encoded - started, finished - started, escalation))

    def _remember(self, request_id: str, counted_as: str, answered: Answered[Live]) -> None:
        labels = answered.snapshot.engine.labels
        self.answers.remember(request_id, counted_as, [labels[index] for index in answered.rows.argmax(1).tolist()])

    async def _answer_by(self, sequences: Sequence[Encoded], engine: Engine) -> NDArray[np.float32]:
        """Return logits [n, C] of a chosen engine."""
        rows: NDArray[np.float32] = (await self._batcher.submit(sequences, choice=engine)).rows
        return rows

    def _headers(
        self,
        sequences: Sequence[Encoded],
        answered: Answered[Live],
        tokenization_s: float,
        total_s: float,
        escalation: Escalation | None,
    ) -> dict[str, str]:
        truncated = sum(sequence.truncated for sequence in sequences)
        tokens = sum(len(sequence.ids) for sequence in sequences) + (escalation.tokens if escalation else 0)
        if truncated:
            self._metrics.truncated_texts.inc(truncated)
        return {
            **_headers_of(answered.snapshot),
            "x-tokenization-time": milliseconds(tokenization_s),
            "x-queue-time": milliseconds(answered.queue_s),
            "x-inference-time": milliseconds(answered.inference_s),
            TOTAL_TIME: milliseconds(total_s),
            "x-truncated": str(truncated),
            "x-compute-tokens": str(tokens),
            **(escalation.headers() if escalation else {}),
        }

    def _observe_batch(self, live: Live, lane: Lane, sequences: Sequence[Encoded]) -> None:
        lengths = [len(sequence.ids) for sequence in sequences]
        self._metrics.batch_texts.observe(len(lengths))
        self._metrics.batch_tokens.observe(sum(lengths))
        self._shelf.rehearsals.ran(live.engine, lane, lengths)

    def start(self) -> None:
        """Begin to answer, on the running event loop."""
        self._batcher.start()
        self._shadow.start()
        self._shelf.start()

    def start_draining(self) -> None:
        """Refuse new requests; those in flight are answered."""
        self._draining = True

    async def drained(self) -> None:
        """Wait until no request is in flight."""
        await self._inflight.none()

    async def stop(self) -> None:
        """Answer what is in flight, then let go of threads and connections."""
        self.start_draining()
        await self.drained()
        await self._shadow.stop()
        await self._batcher.stop()
        await self._pages.close()
        self._lanes.close()
        self._shelf.close()

    def variant_headers(self) -> dict[str, str]:
        """Return the headers that say which variant answers now."""
        return _headers_of(self._shelf.live)

    @property
    def inflight(self) -> int:
        """Requests accepted and not yet answered."""
        return self._inflight.count

    def load(self) -> Load:
        """Return what the replica gets, does and has waiting, as of now."""
        return self._meter.load(queue_tokens=self._batcher.queue_tokens, queue_s=self._batcher.queue_s)

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """What was counted of each variant since the replica started."""
        return self._book.read()

    @property
    def serving(self) -> bool:
        """Whether batches are being run; false before ``start``, and if the batcher has died."""
        return self._batcher.alive

    async def metrics_page(self) -> str:
        """Return this replica's page merged with those of every peer that answers in time."""
        peers = [peer for peer in self._peers() if peer.replica_id != self._replica_id]
        pages = await self._pages.fetch(peers)
        self._metrics.peer_failures.inc(len(peers) - len(pages))
        return merge_pages([(self._replica_id, self._metrics.page()), *pages.items()])


def _headers_of(live: Live) -> dict[str, str]:
    manifest = live.engine.manifest
    return variant_headers(live.generation, manifest.variant_id, manifest.achieved_sparsity)


def _predict(live: Live, sequences: Sequence[Encoded]) -> NDArray[np.float32]:
    """Return logits [n, C]; called in the threads of the lanes."""
    logits: NDArray[Any] = live.engine.predict(sequences).numpy()
    return logits
