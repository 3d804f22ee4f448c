"""Command line of ``python -m loadtests``."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from loadtests.admin import AdminClient
from loadtests.open_loop import Arrivals
from loadtests.options import LoadOptions
from loadtests.processes import Part, checked_pid, noted_pid
from loadtests.result import Result
from loadtests.running import exit_code_of
from loadtests.scenarios import chaos, compare, overload, shadow, spike, steady, swap_under_load
from loadtests.scenarios.chaos import ChaosOptions
from loadtests.scenarios.overload import OverloadOptions
from loadtests.scenarios.shadow import ShadowOptions
from loadtests.scenarios.spike import SpikeOptions
from loadtests.scenarios.swap_under_load import SwapOptions
from loadtests.target import DEFAULT_ROUTE, checked_target
from loadtests.texts import labelled_texts, load_texts, request_bodies

CONNECTIONS = 128
OVERLOAD_CONNECTIONS = 4096
"""More than requests can wait in a queue: otherwise they would wait in the generator, and none be refused."""
DEFAULT_URL = "http://127.0.0.1:8000"
OVERLOADS = ("overload", "spike")
EPILOG = """\
examples:
  python -m loadtests swap_under_load --swaps 200 --rate auto --admin-token-file STORE/admin.token --out results
  python -m loadtests steady --rate 150 --seconds 60
  python -m loadtests overload --factor 2 --seconds 60 --out results
  python -m loadtests spike --factor 2 --target-ms 500 --admin-token-file STORE/admin.token --out results
  python -m loadtests chaos --rounds 3 --admin-token-file STORE/admin.token --out results
  python -m loadtests shadow --texts validation.jsonl --level 0.7 --admin-token-file STORE/admin.token
  python -m loadtests compare --url http://127.0.0.1:8000 --other-url http://127.0.0.1:8001 --rounds 5

exit codes: 0 every law held; 1 a law was broken (a failed request, a generation that went back, a swap that did not
commit, a refusal without Retry-After, something durable that a kill took, an online figure that is not the offline
one); 2 the test could not run. Latency runs from the intended send time, so a stall cannot hide. Progress goes to
stderr, the report or, with --json, the figures to stdout.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one scenario and return the exit code."""
    options = _parser().parse_args(arguments)
    return exit_code_of(_run(options), out=options.out, as_json=options.json)


async def _run(options: argparse.Namespace) -> Result:
    load = _load_options(options)
    if options.scenario == "steady":
        return await steady.run(load, seconds=options.seconds)
    if options.scenario == "overload":
        overloading = OverloadOptions(
            factor=options.factor, seconds=options.seconds, calm_s=options.calm, recovery_s=options.recovery
        )
        return await overload.run(load, overloading)
    if options.scenario == "compare":
        other = checked_target(
            options.other_url, route=options.route, api_key=options.api_key, allow_remote=options.allow_remote
        )
        return await compare.run(load, other, seconds=options.seconds, rounds=options.rounds, clients=options.clients)
    async with AdminClient(load.target.url, _admin_token(options)) as admin:
        if options.scenario == "spike":
            return await spike.run(load, admin, _spike_options(options))
        if options.scenario == "chaos":
            return await chaos.run(load, admin, _chaos_options(options, load.target.url))
        if options.scenario == "shadow":
            return await shadow.run(load.target, admin, _shadow_options(options))
        return await swap_under_load.run(load, admin, _swap_options(options))


def _chaos_options(options: argparse.Namespace, url: str) -> ChaosOptions:
    return ChaosOptions(
        pid=noted_pid(url) if options.pid is None else checked_pid(options.pid),
        parts=options.kill,
        rounds=options.rounds,
        steady_s=options.steady,
        pause_s=options.pause,
        limit_s=options.limit,
        max_seconds=options.max_seconds,
    )


def _shadow_options(options: argparse.Namespace) -> ShadowOptions:
    return ShadowOptions(
        texts=labelled_texts(options.texts),
        level=options.level,
        clients=options.clients,
        limit_s=options.limit,
    )


def _spike_options(options: argparse.Namespace) -> SpikeOptions:
    return SpikeOptions(
        factor=options.factor,
        seconds=options.seconds,
        calm_s=options.calm,
        recovery_s=options.recovery,
        target_ms=options.target_ms,
        sparse=options.sparse,
    )


def _swap_options(options: argparse.Namespace) -> SwapOptions:
    return SwapOptions(
        swaps=options.swaps,
        steady_s=options.steady,
        pause_s=options.pause,
        start=options.start,
        max_sparsity=options.max_sparsity,
        new_share=options.new_share,
        max_seconds=options.max_seconds,
    )


def _load_options(options: argparse.Namespace) -> LoadOptions:
    return LoadOptions(
        target=checked_target(
            options.url, route=options.route, api_key=options.api_key, allow_remote=options.allow_remote
        ),
        bodies=request_bodies(load_texts(options.texts), seed=options.seed),
        rate=options.rate,
        share=options.share,
        arrivals=options.arrivals,
        seed=options.seed,
        connections=options.connections or (CONNECTIONS if options.scenario not in OVERLOADS else OVERLOAD_CONNECTIONS),
        timeout_s=options.timeout,
        probe_s=options.probe,
    )


def _admin_token(options: argparse.Namespace) -> str | None:
    """Return the token of the flag, of the file, or of ``SPARSEDIAL_ADMIN_TOKEN``, in this order."""
    if options.admin_token:
        return str(options.admin_token)
    if options.admin_token_file:
        return str(options.admin_token_file.read_text(encoding="utf-8").strip())
    return os.environ.get("SPARSEDIAL_ADMIN_TOKEN")


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    add = common.add_argument
    add("--url", default=DEFAULT_URL, help="service under test (%(default)s)")
    add("--route", default=DEFAULT_ROUTE, help="route that takes {'inputs': text} (%(default)s)")
    add("--rate", type=_rate, default=None, metavar="auto|N", help="requests/s; auto: --share of the measured capacity")
    add("--share", type=float, default=0.5, help="share of the capacity that auto sends (%(default)s)")
    add("--probe", type=float, default=3.0, metavar="S", help="length of one capacity reading (%(default)s s)")
    add("--arrivals", type=Arrivals, choices=list(Arrivals), default=Arrivals.POISSON, help="spacing (%(default)s)")
    add("--seed", type=int, default=0, help="seed of arrivals, text order and swap plan (%(default)s)")
    add("--texts", type=Path, metavar="FILE", help="one text per line; default: sentences of our own")
    most = f"most keep-alive connections ({CONNECTIONS}; overload, spike: {OVERLOAD_CONNECTIONS})"
    add("--connections", type=int, default=None, help=most)
    add("--timeout", type=float, default=10.0, metavar="S", help="a request fails after it (%(default)s s)")
    add("--api-key", default=os.environ.get("SPARSEDIAL_API_KEY"), help="inference key (SPARSEDIAL_API_KEY)")
    add("--allow-remote", action="store_true", help="let the load go to an address off this machine")
    add("--out", type=Path, metavar="DIR", help="also write report, figures and every request (JSON Lines) there")
    add("--json", action="store_true", help="print figures as JSON instead of the report")
    parser = argparse.ArgumentParser(
        prog="python -m loadtests",
        description="Load tests of a running SparseDial service, over HTTP alone.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scenarios = parser.add_subparsers(dest="scenario", required=True, metavar="SCENARIO")
    _add_swap_under_load(scenarios, common)
    _add_chaos(scenarios, common)
    _add_shadow(scenarios, common)
    one = scenarios.add_parser("steady", parents=[common], help="one rate for a given time")
    one.add_argument("--seconds", type=float, default=30.0, help="length (%(default)s s)")
    over = scenarios.add_parser("overload", parents=[common], help="more than the service can answer, then less again")
    over.add_argument("--factor", type=float, default=2.0, help="offered rate, of --rate or the capacity (%(default)s)")
    over.add_argument("--seconds", type=float, default=60.0, help="length of the overload (%(default)s s)")
    over.add_argument("--calm", type=float, default=15.0, metavar="S", help="time at --share before it (%(default)s s)")
    over.add_argument("--recovery", type=float, default=15.0, metavar="S", help="the same after it (%(default)s s)")
    _add_spike(scenarios, common)
    two = scenarios.add_parser("compare", parents=[common], help="the same load against two URLs in turn")
    two.add_argument("--other-url", required=True, help="the second service, b in the report")
    two.add_argument("--rounds", type=int, default=5, help="paired readings (%(default)s)")
    two.add_argument("--seconds", type=float, default=5.0, help="length of each loop of a reading (%(default)s s)")
    two.add_argument("--clients", type=int, default=16, help="clients of the closed loop (%(default)s)")
    return parser


def _add_swap_under_load(
    scenarios: "argparse._SubParsersAction[argparse.ArgumentParser]", common: argparse.ArgumentParser
) -> None:
    parser = scenarios.add_parser(
        "swap_under_load",
        parents=[common],
        help="swaps among ladder levels and new ones while an open loop sends on",
        description="Hold a steady load, then swap under it, to levels of the ladder and to new ones.",
    )
    _add_admin_token(parser)
    add = parser.add_argument
    add("--swaps", type=int, default=200, help="how many (%(default)s)")
    add("--steady", type=float, default=30.0, metavar="S", help="length of the steady phase (%(default)s s)")
    add("--pause", type=float, default=0.5, metavar="S", help="quiet time after each swap (%(default)s s)")
    add("--start", type=float, default=0.0, help="level of the probe and of the steady phase (%(default)s)")
    add("--max-sparsity", type=float, default=0.99, help="leave out levels above it (%(default)s)")
    add("--new-share", type=float, default=0.5, metavar="SHARE", help="of swaps to levels to be built (%(default)s)")
    add("--max-seconds", type=float, default=3600.0, metavar="S", help="the load ends after it (%(default)s s)")


def _add_chaos(
    scenarios: "argparse._SubParsersAction[argparse.ArgumentParser]", common: argparse.ArgumentParser
) -> None:
    parser = scenarios.add_parser(
        "chaos",
        parents=[common],
        help="kill -9 of one process after another in mid-change while an open loop sends on",
        description="Kill a replica, the controller, HAProxy (or the default proxy) and the builder of a service on "
        "this machine, each in the middle of a change, and tell what each kill cost and how soon all was back.",
    )
    _add_admin_token(parser)
    add = parser.add_argument
    add("--pid", type=int, help="of 'sparsedial serve'; default: as the service on that port noted it")
    add("--kill", type=_parts, default=tuple(Part), metavar="PARTS", help=f"of {','.join(Part)} (default: all)")
    add("--rounds", type=int, default=3, help="kills of each part (%(default)s)")
    add("--steady", type=float, default=10.0, metavar="S", help="load before the first kill (%(default)s s)")
    add("--pause", type=float, default=3.0, metavar="S", help="quiet time once all is back (%(default)s s)")
    add("--limit", type=float, default=120.0, metavar="S", help="how long all may take to come back (%(default)s s)")
    add("--max-seconds", type=float, default=3600.0, metavar="S", help="the load ends after it (%(default)s s)")


def _add_shadow(
    scenarios: "argparse._SubParsersAction[argparse.ArgumentParser]", common: argparse.ArgumentParser
) -> None:
    parser = scenarios.add_parser(
        "shadow",
        parents=[common],
        help="what the service says of live traffic against what the client counts on the same labelled texts",
        description="Ask every text of --texts (JSON Lines with text and label) once by one level with every answer "
        "shadowed, then by both levels; agreement and accuracy online and offline must be the same.",
    )
    _add_admin_token(parser)
    add = parser.add_argument
    add("--level", type=float, default=0.7, help="sparsity, of the ladder (%(default)s)")
    add("--clients", type=int, default=4, help="requests on their way at a time (%(default)s)")
    add("--limit", type=float, default=120.0, metavar="S", help="wait for a batch's shadow answers (%(default)s s)")


def _add_spike(
    scenarios: "argparse._SubParsersAction[argparse.ArgumentParser]", common: argparse.ArgumentParser
) -> None:
    parser = scenarios.add_parser(
        "spike",
        parents=[common],
        help="a step of load against fixed dense, a fixed sparse level and the governor",
        description="Send calm, spike and calm to dense, to a sparse level, and to the governor with a target.",
    )
    add = parser.add_argument
    _add_admin_token(parser)
    add("--factor", type=float, default=2.0, help="rate of the spike, of --rate or the dense capacity (%(default)s)")
    add("--seconds", type=float, default=60.0, help="length of the spike (%(default)s s)")
    add("--calm", type=float, default=15.0, metavar="S", help="time at --share before it (%(default)s s)")
    add("--recovery", type=float, default=75.0, metavar="S", help="the same after it (%(default)s s)")
    add("--target-ms", type=float, default=500.0, metavar="MS", help="p99 target of the governor (%(default)s ms)")
    add("--sparse", type=float, metavar="LEVEL", help="the fixed sparse level; default: the sparsest above the floor")


def _add_admin_token(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--admin-token", help="bearer token of /admin (SPARSEDIAL_ADMIN_TOKEN)")
    parser.add_argument("--admin-token-file", type=Path, metavar="FILE", help="file that holds the token")


def _parts(text: str) -> tuple[Part, ...]:
    """Return the parts of a list such as ``replica,builder``."""
    try:
        return tuple(Part(name.strip()) for name in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; known: {', '.join(Part)}") from error


def _rate(text: str) -> float | None:
    """Return a rate, or None for ``auto``."""
    if text == "auto":
        return None
    rate = float(text)
    if not rate > 0:
        raise argparse.ArgumentTypeError(f"a rate is positive; got {text}")
    return rate
