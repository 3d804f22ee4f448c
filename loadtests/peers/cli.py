"""Command line of ``python -m loadtests.peers``."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from loadtests.errors import LoadTestError
from loadtests.peers.catalog import CONTESTANTS, Contestant
from loadtests.peers.cells import Shape
from loadtests.peers.environments import pins
from loadtests.peers.outcome import result_of
from loadtests.peers.run import Plan, measure
from loadtests.progress import say
from loadtests.result import Result
from loadtests.running import CANNOT, exit_code_of
from loadtests.texts import load_labels, load_texts

EPILOG = """\
examples:
  python -m loadtests.peers --list
  python -m loadtests.peers --peers sparsedial,hf --seconds 2 --rounds 1
  python -m loadtests.peers --texts validation.jsonl --seconds 8 --rounds 3 --out loadtests/results

Each contestant serves the embedded checkpoint on 127.0.0.1, alone, in an environment of its own that is installed from
pinned requirements at the first run (about a gigabyte each) and kept under --envs. In every round each is started once,
its labels of all texts are taken, and it is read under each load. Close other programs first: where one holds a core,
servers that compute in several threads can fall to a fraction of their rate. A reading during which others took more
than a fifth of a core is marked and good for nothing.

exit codes: 0 every contestant was measured and SparseDial failed no request; 1 some contestant was not (its row says
why) or SparseDial failed a request; 2 the run could not take place. Progress goes to stderr, the report or, with
--json, the figures to stdout.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and return the exit code."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(map(_told, CONTESTANTS)))
        return 0
    try:
        plan, gold = _plan(options), load_labels(options.texts)
    except LoadTestError as error:
        say(f"error: {error}")
        return CANNOT
    return exit_code_of(_run(plan, gold), out=options.out, as_json=options.json)


async def _run(plan: Plan, gold: Sequence[str] | None) -> Result:
    words = sum(len(text.split()) for text in plan.texts) / len(plan.texts)
    facts = {
        "load": f"closed loops of {plan.seconds:g} s after {plan.warm_up_s:g} s of warm-up, seed {plan.seed}",
        "rounds": f"{plan.rounds}; each contestant is started once in each, alone; every other round in reverse order",
        "texts": f"{len(plan.texts)}, {words:.0f} words on average",
        "checkpoint": "embedded/model; texts cut to its 512 positions unless the row says otherwise",
        "threads": "each server's own default",
    }
    return result_of(await measure(plan), [str(shape) for shape in plan.shapes], facts, gold)


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        contestants=options.peers,
        texts=load_texts(options.texts),
        envs=Path(os.path.abspath(options.envs)),
        shapes=options.loads,
        levels=options.levels,
        seconds=options.seconds,
        rounds=options.rounds,
        warm_up_s=options.warm_up,
        start_limit_s=options.start_limit,
        timeout_s=options.timeout,
        seed=options.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.peers",
        description="SparseDial beside what users would pick instead: same checkpoint, texts and loads, in one run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--list", action="store_true", help="print the contestants with their pins, and end")
    add("--peers", type=_contestants, default=CONTESTANTS, metavar="A,B,...", help="which (all)")
    add("--texts", type=Path, metavar="FILE", help="JSON Lines with text and label, or lines; default: our sentences")
    add("--seconds", type=_positive, default=8.0, metavar="S", help="length of a reading (%(default)s s)")
    add("--rounds", type=_count, default=2, metavar="R", help="starts, and so readings, of each (%(default)s)")
    add("--loads", type=_shapes, default=_shapes("c1,c8,c32,b2x32"), metavar="L", help="loads (c1,c8,c32,b2x32)")
    add("--levels", type=_levels, default=(0.0, 0.5, 0.7), metavar="L", help="SparseDial's sparsities (0,0.5,0.7)")
    add("--warm-up", type=_positive, default=1.0, metavar="S", help="before each reading (%(default)s s)")
    add("--start-limit", type=_positive, default=300.0, metavar="S", help="for the first answer (%(default)s s)")
    add("--timeout", type=_positive, default=30.0, metavar="S", help="a request fails after it (%(default)s s)")
    add("--seed", type=int, default=0, help="seed of the order of texts (%(default)s)")
    add("--envs", type=Path, default=Path(".peers"), metavar="DIR", help="environments and logs (%(default)s)")
    add("--out", type=Path, metavar="DIR", help="also write report and figures there")
    add("--json", action="store_true", help="print figures as JSON instead of the report")
    return parser


def _told(contestant: Contestant) -> str:
    chosen = pins(contestant.requirements) if contestant.requirements else ["this checkout"]
    return f"{contestant.name:16} {contestant.about}\n{'':16} {', '.join(chosen)}"


def _contestants(words: str) -> tuple[Contestant, ...]:
    known = {contestant.name: contestant for contestant in CONTESTANTS}
    names = list(dict.fromkeys(words.split(",")))
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"no contestant {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(known[name] for name in names)


def _shapes(words: str) -> tuple[Shape, ...]:
    try:
        return tuple(map(Shape.parsed, dict.fromkeys(words.split(","))))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _levels(words: str) -> tuple[float, ...]:
    levels = tuple(sorted(set(map(float, words.split(",")))))
    if not all(0.0 <= level < 1.0 for level in levels):
        raise argparse.ArgumentTypeError(f"levels lie in [0, 1); got {words}")
    return levels


def _positive(word: str) -> float:
    value = float(word)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be positive; got {word}")
    return value


def _count(word: str) -> int:
    value = int(word)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more; got {word}")
    return value
