"""``spike``: the same step of load against fixed dense, a fixed sparse level and the governor, in one run."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from loadtests.admin import AdminClient, service_facts
from loadtests.errors import LoadTestError
from loadtests.laws import Goal, Law, answered_or_refused, generation_never_goes_back, refusals_say_when_to_come_back
from loadtests.machine import own_cpu_s
from loadtests.open_loop import run_open_loop
from loadtests.options import LoadOptions
from loadtests.phases import Phase, Window, summarize
from loadtests.progress import say
from loadtests.result import Result, Table
from loadtests.scenarios.overload import CONCURRENCIES
from loadtests.spike_plot import plot_spike
from loadtests.spikes import Course, Figures, figures_of, timeline

DENSE, GOVERNOR = "dense", "governor"
REFUSED_LIMIT, BACK_LIMIT_S, LAG_LIMIT_S = 0.7, 60.0, 0.5
REST_S = 3.0
"""Pause before a contestant, so that nothing of the one before is left in the queue."""
LEGEND = (
    "Over the spike. *In time*: good answers a second within the target. *Late*: share of the good answers that were "
    "not. *Agreement*: share of the good answers with the label that dense gave for the same text before. *Sparsity*: "
    "mean over the good answers. *Sparser "
    "after*, *dense after*: from the beginning of the spike to the first answer by a sparser level, and from its end "
    "until only dense answered."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeOptions:
    """How large a spike, and what is wanted meanwhile."""

    factor: float = 2.0
    """Offered rate, as a multiple of the dense capacity."""
    seconds: float = 60.0
    calm_s: float = 15.0
    """Length of the load at the usual share of the capacity before the spike."""
    recovery_s: float = 75.0
    """The same after it."""
    target_ms: float = 500.0
    """p99 target: the governor's, and what counts as in time for all."""
    sparse: float | None = None
    """Level of the fixed sparse contestant; by default the sparsest of the ladder above the floor."""


async def run(options: LoadOptions, admin: AdminClient, spiking: SpikeOptions) -> Result:
    """Let every contestant go through calm, spike and calm; judge all by the same target.

    The policy and the variant that were there before the run are there again after it.

    Raises:
        LoadTestError: the ladder has no level but dense.
    """
    facts = {**options.facts(), **await service_facts(options.target)}
    levels = await admin.ladder()
    sparse = spiking.sparse if spiking.sparse is not None else levels[-1]
    if sparse == 0:
        raise LoadTestError("the ladder has no level above the accuracy floor but dense; nothing can be compared")
    async with _as_before(admin):
        await _enter(admin, DENSE, 0.0, spiking)
        capacity, capacity_facts = await _capacity(options)
        dense_labels = await _labels(options)
        courses, cpu_shares = [], []
        for name, level in ((DENSE, 0.0), (f"{sparse:g}", sparse), (GOVERNOR, 0.0)):
            say(f"contestant {name} ...")
            await _enter(admin, name, level, spiking)
            await asyncio.sleep(REST_S)
            course, cpu_share = await _drive(options, spiking, name, capacity)
            courses.append(course)
            cpu_shares.append(cpu_share)
    return _judge(
        courses,
        spiking,
        dense_labels=dense_labels,
        capacity=capacity,
        share=options.share,
        facts={
            **facts,
            **capacity_facts,
            "rate": f"{options.share:g}, {spiking.factor:g}, {options.share:g} x capacity",
            "p99 target": f"{spiking.target_ms:g} ms",
            "ladder": ", ".join(f"{level:g}" for level in levels),
            "generator CPU": ", ".join(f"{share:.0%}" for share in cpu_shares) + " of one core",
        },
    )


@asynccontextmanager
async def _as_before(admin: AdminClient) -> AsyncIterator[None]:
    """Bring back the policy and the variant of now, however the run ends."""
    policy, spec = await admin.policy(), await admin.spec()
    try:
        yield
    finally:
        await admin.set_policy(mode="manual")
        await admin.dial(**spec)
        await admin.set_policy(mode=policy["mode"], slo_p99_ms=policy["slo_p99_ms"])


async def _enter(admin: AdminClient, name: str, level: float, spiking: SpikeOptions) -> None:
    await admin.set_policy(mode="manual", slo_p99_ms=spiking.target_ms)
    operation = await admin.dial(level)
    if not operation.committed:
        raise LoadTestError(f"sparsity {level:g} was not committed: {operation.detail}")
    if name == GOVERNOR:
        await admin.set_policy(mode="auto")


async def _capacity(options: LoadOptions) -> tuple[float, dict[str, str]]:
    if options.rate is not None:
        return options.rate, {"capacity": f"{options.rate:g} requests/s, given"}
    capacity, facts = await options.capacity(CONCURRENCIES)
    return capacity.rate, facts


async def _labels(options: LoadOptions) -> list[str | None]:
    """Return the label of each body by the level that answers now."""
    async with options.pool(read_labels=True) as pool:
        return [(await pool.send(0, pool.clock.now(), body)).label for body in options.bodies]


async def _drive(options: LoadOptions, spiking: SpikeOptions, name: str, capacity: float) -> tuple[Course, float]:
    """Return one contestant's course, and the share of a core that sending it took."""
    calm_rate = capacity * options.share
    cpu_s = own_cpu_s()
    async with options.pool(read_labels=True) as pool, asyncio.TaskGroup() as group:
        start_s = pool.clock.now()
        spike = Window(start_s=start_s + spiking.calm_s, end_s=start_s + spiking.calm_s + spiking.seconds)
        loads = (
            (start_s, options.load(calm_rate, spiking.calm_s)),
            (spike.start_s, options.load(capacity * spiking.factor, spiking.seconds)),
            (spike.end_s, options.load(calm_rate, spiking.recovery_s)),
        )
        parts = [group.create_task(run_open_loop(pool, options.bodies, load, start_s=when_s)) for when_s, load in loads]
        replies = [reply for part in parts for reply in await part]
        seconds = pool.clock.now() - start_s
    course = Course(name=name, replies=replies, spike=spike, end_s=spike.end_s + spiking.recovery_s)
    return course, (own_cpu_s() - cpu_s) / seconds


def _judge(
    courses: Sequence[Course],
    spiking: SpikeOptions,
    *,
    dense_labels: Sequence[str | None],
    capacity: float,
    share: float,
    facts: dict[str, str],
) -> Result:
    """Return laws, goals and figures of a finished run."""
    target_s = spiking.target_ms / 1e3
    figures = {course.name: figures_of(course, target_s=target_s, dense_labels=dense_labels) for course in courses}
    dense, governor = figures[DENSE], figures[GOVERNOR]
    refused = governor.refused_share / dense.refused_share if dense.refused_share else math.nan
    replies = [reply for course in courses for reply in course.replies]
    phases = tuple(phase for course in courses for phase in _phases(course, spiking, capacity, share))
    timelines = {course.name: timeline(course) for course in courses}
    title = f"{spiking.factor:g} x the dense capacity for {spiking.seconds:g} s, p99 target {spiking.target_ms:g} ms"
    return Result(
        scenario="spike",
        facts=facts,
        phases=phases,
        laws=(
            answered_or_refused(replies),
            refusals_say_when_to_come_back(replies),
            *(_in_order(course) for course in courses),
        ),
        goals=(
            Goal(name="refused, governor / dense", value=refused, limit=REFUSED_LIMIT),
            Goal(name="seconds until only dense answers", value=governor.back_on_dense_s, limit=BACK_LIMIT_S),
            Goal(
                name="send lag p99 of the generator, s",
                value=max(phase.lag.quantile(0.99) for phase in phases),
                limit=LAG_LIMIT_S,
            ),
        ),
        tables=(_table(figures),),
        details={
            "target_s": target_s,
            "figures": {name: _finite(asdict(one)) for name, one in figures.items()},
            "timelines": timelines,
        },
        replies={course.name: list(course.replies) for course in courses},
        draw=lambda path: plot_spike(timelines, path, spike_s=spiking.seconds, target_s=target_s, title=title),
    )


def _in_order(course: Course) -> Law:
    law = generation_never_goes_back(reply for reply in course.replies if not reply.refused)
    return replace(law, name=f"{law.name}, {course.name}")


def _phases(course: Course, spiking: SpikeOptions, capacity: float, share: float) -> list[Phase]:
    calm_rate, spike = capacity * share, course.spike
    parts = (
        ("calm", course.within(-math.inf, spike.start_s), spiking.calm_s, calm_rate),
        ("spike", course.during, spiking.seconds, capacity * spiking.factor),
        ("after", course.within(spike.end_s, math.inf), spiking.recovery_s, calm_rate),
    )
    return [
        summarize(f"{course.name}, {name}", replies, seconds=seconds, offered_rate=rate)
        for name, replies, seconds, rate in parts
    ]


def _table(figures: dict[str, Figures]) -> Table:
    header = (
        "contestant",
        "refused",
        "in time/s",
        "late",
        "agreement",
        "sparsity",
        "sparser after",
        "dense after",
    )
    rows = [
        (
            name,
            f"{one.refused_share:.1%}",
            f"{one.in_time_per_s:.1f}",
            f"{one.late_share:.1%}",
            f"{one.agreement:.1%}",
            f"{one.sparsity:.2f}",
            _seconds(one.first_sparser_s if name == GOVERNOR else math.inf),
            _seconds(one.back_on_dense_s if name == GOVERNOR else math.inf),
        )
        for name, one in figures.items()
    ]
    return Table(title="Spike", header=header, rows=tuple(rows), legend=LEGEND)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if math.isfinite(seconds) else "-"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values for JSON; None stands for a figure that does not exist."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
