"""The commands that turn a running service's dial: thin over the admin API, and without torch or Ray."""

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from pruning.errors import PruningError
from pruning.spec import PruneSpec
from service.admin_client import DEFAULT_URL, AdminClient
from service.options import (
    PATTERN_HELP,
    SCORER_HELP,
    AsJson,
    RecoverOption,
    ScopeOption,
    Sparsity,
    StructuresOption,
    Token,
    Url,
    Wait,
    number_of,
    refusals,
)
from service.running import find_service
from service.terminal import print_json, spinner


class PolicyWordsError(PruningError):
    """Words that set no member of a policy."""


def dial(
    sparsity: Sparsity,
    scorer: Annotated[str | None, typer.Option(help=SCORER_HELP)] = None,
    pattern: Annotated[str | None, typer.Option(help=PATTERN_HELP)] = None,
    recover: RecoverOption = None,
    scope: ScopeOption = None,
    structures: StructuresOption = None,
    rounds: Annotated[int | None, typer.Option(help="Score anew whenever another 1/N of the weights has gone.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16, int8 (CPUs) or float16 (GPUs).")] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Turn the dial of a running service.

    Waits until every replica answers with the new variant; no request is dropped meanwhile. A level that is not
    stored yet is built first, in seconds; one below the accuracy floor is refused, and nothing changes. Example:

    \b
      sparsedial dial 0.5
      sparsedial dial 0 --url http://10.0.0.7:8000 --token "$(cat admin.token)"
    """
    with refusals(as_json=as_json):
        wish: dict[str, str | int | None] = {"scorer": scorer, "pattern": pattern, "recover": recover}
        wish |= {"precision": precision, "scope": scope, "structures": structures, "rounds": rounds}
        change = {"sparsity": number_of(sparsity), **{name: value for name, value in wish.items() if value is not None}}
        PruneSpec.from_dict(change)  # refused here in the same words, and NaN could not even be sent
        _change(lambda client: client.dial(change, wait), url, token, as_json)


def rollback(url: Url = DEFAULT_URL, token: Token = None, wait: Wait = 60.0, as_json: AsJson = False) -> None:
    """Return a running service to the variant before the last change.

    A change that still runs is taken back, and what was served goes on. Otherwise the previous variant serves again: it
    is still loaded, so this takes no time; a second rollback takes the first one back. Example:

    \b
      sparsedial rollback
    """
    with refusals(as_json=as_json):
        _change(lambda client: client.rollback(wait), url, token, as_json)


def status(url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False) -> None:
    """Show what a running service serves now.

    Sparsity, generation, variant, accuracy, replicas, in mode auto what the governor is about, the policy's cascade,
    and the change that runs, if one does. Example:

    \b
      sparsedial status --json
    """
    with refusals(as_json=as_json):
        state = client_of(url, token).status()
        if as_json:
            print_json(state)
            return
        low, high = state["accuracy_interval"]
        typer.echo(
            f"sparsity {state['sparsity']:g} (achieved {state['achieved_sparsity']:.3f}), generation "
            f"{state['generation']}, variant {state['variant']}\n"
            f"accuracy {state['accuracy']:.1%} ({low:.1%} to {high:.1%}), floor {state['accuracy_floor']:.1%}, "
            f"{len(state['replicas'])} replica{'' if len(state['replicas']) == 1 else 's'}"
        )
        if state["governor"]:
            typer.echo(f"the governor turns the dial ({state['governor']['why']}): {state['governor']['reason']}")
        if state["cascade"]:
            typer.echo(_cascade_words(state["cascade"]))
        if state["operation"]:
            typer.echo(f"changing: operation {state['operation']['id']} is {state['operation']['phase']}")


def policy(
    members: Annotated[
        list[str] | None, typer.Argument(metavar="MEMBER=VALUE", help="What to set; without any, show the policy.")
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Show what a running service may do by itself, or change it.

    What is set outlives a restart. In mode auto the governor turns the dial to hold slo_p99_ms, between min_sparsity
    and max_sparsity and above accuracy_floor. Example:

    \b
      sparsedial policy
      sparsedial policy mode=auto slo_p99_ms=200 max_sparsity=0.7
      sparsedial policy mode=manual
    """
    with refusals(as_json=as_json):
        held = client_of(url, token).policy(dict(_assignment(words) for words in members or []))
        if as_json:
            print_json(held)
            return
        for name, value in held.items():
            typer.echo(f"{name}={value if isinstance(value, str) else json.dumps(value)}")


def _cascade_words(cascade: dict[str, Any]) -> str:
    name = f"the cascade from {cascade['sparsity']:g} (agreement {cascade['agreement_target']:g})"
    if cascade["active"]:
        return f"{name} answers requests that name no level"
    return f"{name} is switched off: {cascade['off']}"


def _assignment(words: str) -> tuple[str, Any]:
    """Return the name and the value of ``MEMBER=VALUE``: a number, null, or a word."""
    name, equals, text = words.partition("=")
    if not (name and equals):
        raise PolicyWordsError(f"'{words}' sets nothing; write MEMBER=VALUE, such as slo_p99_ms=200")
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        value = text
    return name, value


def _change(call: Callable[[AdminClient], dict[str, Any]], url: str, token: str | None, as_json: bool) -> None:
    client = client_of(url, token)
    with spinner("waiting for every replica"):
        operation = call(client)
    if as_json:
        print_json(operation)
    elif operation["phase"] == "committed":
        typer.echo(
            f"committed: generation {operation['generation']}, variant {operation['variant']}, accuracy "
            f"{operation['accuracy']:.1%}"
        )
    elif operation["error_type"] == "cancelled":
        typer.echo(
            f"taken back: operation {operation['id']} (sparsity {operation['sparsity']:g}); what was served goes on"
        )
    else:
        typer.echo(f"{operation['phase']}: operation {operation['id']}; 'sparsedial status' shows how it goes")


def client_of(url: str, token: str | None) -> AdminClient:
    """Return a client of the service at ``url``; without a token, with that of a service that this user runs there."""
    found = None if token else find_service(url)
    return AdminClient(found.url, found.token) if found else AdminClient(url, token)
