"""The command that asks a running service what a level would cost, before anything changes."""

from typing import Annotated, Any

import typer

from pruning.errors import SpecError
from pruning.spec import PruneSpec
from service.admin_client import DEFAULT_URL
from service.dial_commands import client_of
from service.options import (
    PATTERN_HELP,
    SCORER_HELP,
    AsJson,
    RecoverOption,
    ScopeOption,
    Token,
    Url,
    number_of,
    refusals,
)
from service.terminal import print_json


def plan(
    sparsity: Annotated[
        str | None, typer.Argument(help="Share of encoder weights to remove: a number in [0, 1).", metavar="SPARSITY")
    ] = None,
    p99_ms: Annotated[
        float | None, typer.Option("--p99-ms", help="Find the densest level that answers 99 of 100 in this time.")
    ] = None,
    accuracy: Annotated[
        float | None, typer.Option(help="Find a level with at least this accuracy, in (0, 1]; alone the fastest.")
    ] = None,
    scorer: Annotated[str | None, typer.Option(help=SCORER_HELP)] = None,
    pattern: Annotated[str | None, typer.Option(help=PATTERN_HELP)] = None,
    recover: RecoverOption = None,
    scope: ScopeOption = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16, int8 (CPUs) or float16 (GPUs).")] = None,
    rounds: Annotated[int | None, typer.Option(help="Score anew whenever another 1/N of the weights has gone.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Ask a running service what a level would be worth and cost.

    Nothing is built and nothing changes: a level that is not stored is predicted from its neighbours on the frontier.
    With --p99-ms, --accuracy or both in place of a sparsity it names the best loaded level. Example:

    \b
      sparsedial plan 0.55
      sparsedial plan --p99-ms 20 --accuracy 0.88
    """
    with refusals(as_json=as_json):
        way: dict[str, Any] = {"scorer": scorer, "pattern": pattern, "recover": recover, "scope": scope}
        way |= {"precision": precision, "rounds": rounds}
        wish = _wish(way, sparsity, {"p99_ms": p99_ms, "accuracy": accuracy})
        found = client_of(url, token).plan(wish)
        if as_json:
            print_json(found)
        else:
            typer.echo(_words(found))


def _wish(way: dict[str, Any], sparsity: str | None, bounds: dict[str, float | None]) -> dict[str, Any]:
    """Return the body of the request.

    Raises:
        SpecError: neither a sparsity nor a bound, or both.
    """
    given = {name: value for name, value in way.items() if value is not None}
    wanted = {name: value for name, value in bounds.items() if value is not None}
    if sparsity is not None and not wanted:
        change = {"sparsity": number_of(sparsity), **given}
        PruneSpec.from_dict(change)  # refused here in the same words, and NaN could not even be sent
        return change
    if sparsity is None and wanted and not given:
        return wanted
    raise SpecError("plan wants a SPARSITY, with how it is cut if you like, or --p99-ms and --accuracy alone")


def _words(found: dict[str, Any]) -> str:
    low, high = found["accuracy_interval"]
    between = " and ".join(f"{one:g}" for one in found["neighbours"])
    kind = "measured" if found["exact"] else f"predicted between {between}"
    reason = f"; {found['reason']}" if "reason" in found else ""
    floor = f"{'passes' if found['passes_floor'] else 'is below'} the floor {found['accuracy_floor']:.1%}"
    built = "loaded" if found["resident"] else "stored" if found["exact"] else f"built in {found['build_s']:.1f} s"
    return (
        f"sparsity {found['sparsity']:g}: {kind}{reason}\n"
        f"accuracy {found['accuracy']:.1%} ({low:.1%} to {high:.1%}), {floor}\n"
        f"one text {found['latency_p50_ms']:.1f} ms, {found['items_per_s']:.0f} texts/s\n"
        f"p99 {found['p99_ms']:.1f} ms: {found['p99_from']}\n"
        f"{found['macs'] / 1e6:.0f} M MACs, {found['parameters'] / 1e6:.1f} M parameters, "
        f"{found['bytes'] / 1e6:.1f} MB; {built}"
    )
