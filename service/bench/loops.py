"""A running service under closed loops: texts a second and where the time went, at every level in turn."""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from loadtests.admin import AdminClient
from loadtests.capacity import closed_loop
from loadtests.client import LanePool
from loadtests.errors import LoadTestError
from loadtests.histogram import LatencyHistogram
from loadtests.records import Reply
from loadtests.target import Target
from pruning.spec import PruneSpec
from pruning.tokenization import Text
from service.bench.engine import BATCH_TEXTS, Progress
from service.bench.errors import BenchError
from service.bench.own_service import OwnService

ROUNDS = 3
WARM_UP_S = 0.7
TOKENIZATION, QUEUE, INFERENCE, TOTAL = (f"x-{stage}-time" for stage in ("tokenization", "queue", "inference", "total"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A number of clients that each send a request, wait for its answer and send the next."""

    name: str
    clients: int
    texts: int
    """In one request."""


LOOPS = (
    Loop(name="batched", clients=4, texts=BATCH_TEXTS),
    Loop(name="single_32", clients=32, texts=1),
    Loop(name="single_1", clients=1, texts=1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopReading:
    """What one loop reached at one level."""

    requests: int
    texts_per_s: float
    latency_p50_ms: float
    latency_p99_ms: float
    stage_ms: dict[str, float]
    """Mean milliseconds of a request: tokenization, queue, inference, answer (ranking, JSON, waiting for the event
    loop), and http (everything outside the service's own clock: HTTP, the path to the replica, the client)."""
    shares: dict[str, float]
    """Share of the wall time that a tokenization ran, and that some batch was computed; rest: neither is known to have
    run. Both may run at once, and then the shares add up to more than 1."""


def bodies_of(texts: Sequence[Text], size: int) -> list[bytes]:
    """Return ``POST /predict`` bodies of ``size`` texts each, in order, the last filled up from the beginning."""
    items = [[text] if isinstance(text, str) else list(text) for text in texts]
    if size == 1:
        return [json.dumps({"inputs": item if len(item) > 1 else item[0]}).encode() for item in items]
    starts = range(0, len(items), size)
    return [
        json.dumps({"inputs": [items[(start + place) % len(items)] for place in range(size)]}).encode()
        for start in starts
    ]


async def measure_loops(
    service: OwnService,
    specs: Sequence[PruneSpec],
    texts: Sequence[Text],
    *,
    seconds: float,
    rounds: int = ROUNDS,
    progress: Progress = lambda done, total: None,
) -> list[dict[str, LoopReading]]:
    """Return the readings of every level by the loop's name, in order; of each the fastest round.

    The dial goes through all levels round by round; ``seconds`` is how long each loop runs in a round.

    Raises:
        BenchError: a level could not be reached, or a request was not answered with 200.
    """
    bodies = {size: bodies_of(texts, size) for size in {loop.texts for loop in LOOPS}}
    target = Target(url=service.url)
    found: list[dict[str, list[LoopReading]]] = [{loop.name: [] for loop in LOOPS} for _ in specs]
    try:
        async with AdminClient(service.url, service.token) as admin:
            for number in range(rounds):
                for index, (spec, readings) in enumerate(zip(specs, found, strict=True)):
                    await _dial(admin, spec)
                    async with LanePool(target, size=max(loop.clients for loop in LOOPS)) as pool:
                        for loop in LOOPS:
                            await closed_loop(pool, bodies[loop.texts], clients=loop.clients, seconds=WARM_UP_S)
                            start_s = pool.clock.now()
                            replies = await closed_loop(pool, bodies[loop.texts], clients=loop.clients, seconds=seconds)
                            reading = reading_of(replies, loop, wall_s=pool.clock.now() - start_s)
                            readings[loop.name].append(reading)
                    progress(number * len(specs) + index + 1, rounds * len(specs))
    except LoadTestError as error:
        raise BenchError(f"the service under measurement failed: {error}") from error
    return [
        {name: max(several, key=lambda reading: reading.texts_per_s) for name, several in readings.items()}
        for readings in found
    ]


async def _dial(admin: AdminClient, spec: PruneSpec) -> None:
    wish = {name: value for name, value in spec.as_dict().items() if name != "sparsity"}
    operation = await admin.dial(spec.sparsity, **wish)
    if not operation.committed:
        raise BenchError(f"sparsity {spec.sparsity:g} was not committed: {operation.phase}, {operation.detail}")


def reading_of(replies: Sequence[Reply], loop: Loop, *, wall_s: float) -> LoopReading:
    """Return what the replies of ``wall_s`` seconds say.

    Raises:
        BenchError: a reply failed, or none tells its times.
    """
    failed = sorted({f"{reply.status} {reply.error or ''}".strip() for reply in replies if reply.failed})
    if failed or not replies:
        raise BenchError(f"the service under measurement answered {', '.join(failed) or 'nothing'}, not 200")
    if any(TOTAL not in reply.times_ms for reply in replies):
        raise BenchError("an answer did not tell its times; is something else listening at that port?")
    latencies = LatencyHistogram(reply.done_s - reply.sent_s for reply in replies)
    tokenization_s = 1e-3 * sum(reply.times_ms[TOKENIZATION] for reply in replies)
    busy = {"tokenization": tokenization_s / wall_s, "inference": computing_s(replies) / wall_s}
    return LoopReading(
        requests=len(replies),
        texts_per_s=len(replies) * loop.texts / wall_s,
        latency_p50_ms=1e3 * latencies.quantile(0.5),
        latency_p99_ms=1e3 * latencies.quantile(0.99),
        stage_ms=_stages(replies),
        shares=busy | {"rest": max(0.0, 1.0 - math.fsum(busy.values()))},
    )


def computing_s(replies: Iterable[Reply]) -> float:
    """Return the seconds in which some batch was computed: batches on several cores at once are not added up.

    Requests of one batch tell the same inference time, to the microsecond, and were under way at the same time. A batch
    is taken to have ended when the first of its answers arrived: the way back is about as long for all.
    """
    spans: list[tuple[float, float]] = []
    under_way: dict[float, float] = {}
    for reply in sorted(replies, key=lambda reply: reply.done_s):
        inference_ms = reply.times_ms[INFERENCE]
        if reply.sent_s >= under_way.get(inference_ms, -math.inf):  # else of a batch that was counted
            under_way[inference_ms] = reply.done_s
            spans.append((reply.done_s - 1e-3 * inference_ms, reply.done_s))
    total_s, until_s = 0.0, -math.inf
    for start_s, end_s in sorted(spans):
        total_s += max(0.0, end_s - max(start_s, until_s))
        until_s = max(until_s, end_s)
    return total_s


def _stages(replies: Sequence[Reply]) -> dict[str, float]:
    def mean(value: Callable[[Reply], float]) -> float:
        return statistics.fmean(map(value, replies))

    stages = {
        "tokenization": mean(lambda reply: reply.times_ms[TOKENIZATION]),
        "queue": mean(lambda reply: reply.times_ms[QUEUE]),
        "inference": mean(lambda reply: reply.times_ms[INFERENCE]),
    }
    total = mean(lambda reply: reply.times_ms[TOTAL])
    answer = max(0.0, total - math.fsum(stages.values()))
    http = max(0.0, mean(lambda reply: 1e3 * (reply.done_s - reply.sent_s)) - total)
    return stages | {"answer": answer, "http": http}
