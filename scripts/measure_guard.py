"""How soon a running service turns back a variant that was spoilt after it was judged: as committed, and on trial.

sparsedial serve --store STORE    (in another terminal)
python scripts/measure_guard.py --store STORE --texts validation.jsonl [--noises 0.5,10]

The variant of a level off the ladder is built, left, disturbed on disk and asked for again, while one client sends text
after text with a short pause, in which the dense model answers as well. It is removed at the end, and the policy and
the level are put back.
"""

import argparse
import asyncio
import shutil
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from spoiling import spoil

from loadtests.admin import AdminClient, Operation
from loadtests.asking import Asker
from loadtests.errors import AdminError
from loadtests.target import DEFAULT_ROUTE, Target
from loadtests.texts import load_texts
from service.admin_client import DEFAULT_URL
from service.running import find_service

PAUSE_S = 0.02
LIMIT_S = 300.0
HEADER = "| noise | way | turned back | answers by it | of requests | s | texts compared | of them agreed |"
AWAY = (0.0, 0.3)
"""Levels that are visited so that a variant is neither committed nor the previous one, and leaves the replicas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How it went."""

    over: bool
    """Whether it was turned back within the limit."""
    by_it: int
    """Requests that the spoilt variant answered."""
    requests: int
    seconds: float
    """From the first answer by it until it answered no longer."""
    compared: int
    """Texts that the dense model had answered as well."""
    agreed: int
    """Of them, those with the same label."""


async def measure(options: argparse.Namespace) -> None:
    """Print one row per noise and way."""
    service = find_service(options.url)
    if service is None:
        raise SystemExit(f"no service of this user runs at {options.url}; start one with 'sparsedial serve'")
    texts = load_texts(options.texts)
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(AdminClient(service.url, service.token))
        asker = await stack.enter_async_context(Asker(Target(url=service.url, route=DEFAULT_ROUTE), clients=1))
        spec, policy = await admin.spec(), await admin.policy()
        await admin.set_policy(shadow_fraction=1.0, canary_s=LIMIT_S, canary_texts=100_000)
        print(HEADER + "\n" + "| --- " * HEADER.count(" |") + "|", flush=True)
        try:
            for noise in map(float, options.noises.split(",")):
                for share in (0.0, options.canary):
                    found = await _turned_back(admin, asker, texts, options, noise, share)
                    print(_row(noise, share, found), flush=True)
        finally:
            await admin.set_policy(**{name: policy[name] for name in ("shadow_fraction", "canary_s", "canary_texts")})
            await admin.dial(**spec, canary=False)


def _row(noise: float, share: float, found: Found) -> str:
    """Return a line of the table."""
    cells = (
        f"{noise:g}",
        f"on trial, {share:.0%} of the requests" if share else "committed",
        "yes" if found.over else "no",
        str(found.by_it),
        str(found.requests),
        f"{found.seconds:.1f}",
        str(found.compared),
        str(found.agreed),
    )
    return "| " + " | ".join(cells) + " |"


async def _turned_back(
    admin: AdminClient, asker: Asker, texts: Sequence[str], options: argparse.Namespace, noise: float, share: float
) -> Found:
    """Spoil the level's variant, serve it, and return when it was turned back."""
    variant = str((await _committed(admin, options.level)).variant)
    for level in AWAY:
        await _committed(admin, level)
    folder = options.store / "variants" / variant
    spoil(folder, noise)
    before = await _seen(admin, variant)
    try:
        if share:
            return await _watch(admin, asker, texts, variant, before, await admin.begin(options.level, canary=share))
        await _committed(admin, options.level)
        return await _watch(admin, asker, texts, variant, before, None)
    finally:
        for level in AWAY:
            await _committed(admin, level)
        shutil.rmtree(folder)


async def _committed(admin: AdminClient, level: float) -> Operation:
    operation = await admin.dial(level, canary=False)
    if not operation.committed:
        raise SystemExit(f"level {level:g} was not committed: {operation.detail}")
    return operation


async def _seen(admin: AdminClient, variant: str) -> tuple[int, int]:
    """Return how many texts of a variant were compared since the service started, and how many of them agreed."""
    try:
        online = await admin.online(variant)
    except AdminError:  # nothing yet
        return 0, 0
    texts = int(online["texts_compared"])
    return texts, round((online["agreement"] or 0.0) * texts)


async def _watch(
    admin: AdminClient,
    asker: Asker,
    texts: Sequence[str],
    variant: str,
    before: tuple[int, int],
    trial: Operation | None,
) -> Found:
    """Ask text after text until ``variant`` no longer answers: another one is committed, or its trial has ended."""
    by_it = requests = 0
    first_s = last_s = time.monotonic()
    over = False
    for text in cycle(texts):
        [answer] = await asker.labels([text])
        requests += 1
        if answer.variant == variant:
            last_s = time.monotonic()
            first_s = first_s if by_it else last_s
            by_it += 1
        else:
            over = trial is None or (await admin.operation(trial.id)).ended
        if over or time.monotonic() > first_s + LIMIT_S:
            break
        await asyncio.sleep(PAUSE_S)
    seen = await _seen(admin, variant)
    return Found(
        over=over,
        by_it=by_it,
        requests=requests,
        seconds=last_s - first_s,
        compared=seen[0] - before[0],
        agreed=seen[1] - before[1],
    )


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--store", type=Path, required=True, help="the folder that the service was started with")
    parser.add_argument("--texts", type=Path, help="texts to ask, as for the load tests")
    parser.add_argument("--level", type=float, default=0.45, help="a level off the ladder (%(default)s)")
    parser.add_argument("--noises", default="0.5,10", help="in standard deviations of each tensor (%(default)s)")
    parser.add_argument("--canary", type=float, default=0.2, help="share of the requests on trial (%(default)s)")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
