"""``compare``: the same load against two URLs in turn, so that a ratio is of two readings taken side by side."""

import math
from dataclasses import dataclass
from statistics import median

from loadtests.admin import service_facts
from loadtests.capacity import closed_loop, probe_capacity
from loadtests.laws import no_failed_request
from loadtests.open_loop import run_open_loop
from loadtests.options import LoadOptions
from loadtests.phases import Phase, summarize
from loadtests.progress import say
from loadtests.records import Reply
from loadtests.report import milliseconds
from loadtests.result import Result, Table
from loadtests.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One round against one target."""

    throughput: float
    """Good answers per second of a closed loop."""
    phase: Phase
    """The open loop at the common rate."""
    replies: list[Reply]


async def run(options: LoadOptions, other: Target, *, seconds: float, rounds: int, clients: int) -> Result:
    """Read both targets ``rounds`` times, the first to go alternating, and report the ratios of paired readings.

    Each reading is a closed loop of ``clients`` (throughput), then an open loop at one common rate (latency), for
    ``seconds`` each. The common rate is the given one, or the share of the slower target's capacity.
    """
    targets = (options.target, other)
    facts = {**options.facts(), "a": options.target.url, "b": other.url, "clients": f"{clients} in the closed loop"}
    for name, target in zip("ab", targets, strict=True):
        facts |= {f"{label} {name}": words for label, words in (await service_facts(target)).items()}
    rate = options.rate if options.rate is not None else await _common_rate(options, targets)
    readings: tuple[list[Reading], list[Reading]] = ([], [])
    for number in range(rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            reading = await _read(options, targets[side], rate=rate, seconds=seconds, clients=clients)
            readings[side].append(reading)
            say(f"round {number + 1}/{rounds} {'ab'[side]}: {reading.throughput:.0f} requests/s")
    replies = [reply for side in readings for reading in side for reply in reading.replies]
    ratio = median(_ratio(a, b) for a, b in zip(*readings, strict=True))
    return Result(
        scenario="compare",
        facts={**facts, "rate": f"{rate:.1f} requests/s", "throughput a/b": f"{ratio:.2f} (median of {rounds} rounds)"},
        phases=tuple(reading.phase for side in readings for reading in side),
        laws=(no_failed_request(replies),),
        tables=(_paired_table(readings),),
        details={"throughput_ratio": ratio, "throughput": [[r.throughput for r in side] for side in readings]},
    )


async def _common_rate(options: LoadOptions, targets: tuple[Target, Target]) -> float:
    """Return the share of what the slower target can answer."""
    rates = [(await probe_capacity(target, options.bodies, seconds=options.probe_s)).rate for target in targets]
    say(f"capacity: a {rates[0]:.0f}, b {rates[1]:.0f} requests/s")
    return min(rates) * options.share


async def _read(options: LoadOptions, target: Target, *, rate: float, seconds: float, clients: int) -> Reading:
    async with options.pool(target) as pool:
        start_s = pool.clock.now()
        closed = await closed_loop(pool, options.bodies, clients=clients, seconds=seconds)
        throughput = sum(not reply.failed for reply in closed) / (pool.clock.now() - start_s)
        opened = await run_open_loop(pool, options.bodies, options.load(rate, seconds))
    phase = summarize(target.url, opened, seconds=seconds, offered_rate=rate)
    return Reading(throughput=throughput, phase=phase, replies=closed + opened)


def _ratio(a: Reading, b: Reading) -> float:
    """Return the throughput of ``a`` over that of ``b``; NaN when ``b`` answered nothing."""
    return a.throughput / b.throughput if b.throughput else math.nan


def _paired_table(readings: tuple[list[Reading], list[Reading]]) -> Table:
    """Return one row per round: throughput and latency of both targets, and a/b."""
    rows = [
        (
            str(number),
            f"{a.throughput:.0f}",
            f"{b.throughput:.0f}",
            f"{_ratio(a, b):.2f}",
            milliseconds(a.phase.latency.quantile(0.5)),
            milliseconds(b.phase.latency.quantile(0.5)),
            milliseconds(a.phase.latency.quantile(0.99)),
            milliseconds(b.phase.latency.quantile(0.99)),
        )
        for number, (a, b) in enumerate(zip(*readings, strict=True), start=1)
    ]
    header = ("round", "a req/s", "b req/s", "a/b", "a p50 ms", "b p50 ms", "a p99 ms", "b p99 ms")
    return Table(title="Paired readings", header=header, rows=tuple(rows))
