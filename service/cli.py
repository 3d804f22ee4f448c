"""The ``sparsedial`` command: every subcommand, thin over the pipeline and the admin API.

Exit codes: 0 done; 1 the service refused, or the change failed or is not over; 2 bad input: an option, file, model,
store or token that cannot be used; 3 no service answers.

What needs torch or Ray is imported by the command that needs it: ``status`` and ``dial`` answer at once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pruning.errors import SpecError
from pruning.spec import PruneSpec, Recover, Scope, precisions_of
from service.bench.command import bench
from service.compare_command import compare
from service.dial_commands import dial, policy, rollback, status
from service.import_command import import_
from service.options import (
    AsJson,
    Eval,
    Levels,
    Model,
    ModelOption,
    NumberCommand,
    PatternOption,
    PrecisionOption,
    PrecisionsOption,
    RecoverOption,
    RoundsOption,
    ScopeOption,
    Scorer,
    Store,
    StructuresOption,
    Train,
    number_of,
    refusals,
    settings_of,
)
from service.plan_command import plan
from service.pretrain_command import pretrain
from service.recover_command import recover
from service.settings import Device, EngineName, Ingress
from service.terminal import print_cascades, print_frontier, print_json, say
from service.version import VERSION

app = typer.Typer(
    name="sparsedial",
    epilog="Start with 'sparsedial serve': it serves the embedded model and prints what to try next.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(VERSION)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Serve a BERT classifier whose cost is a live dial."""


@app.command()
def prepare(
    model: Model = "embedded",
    train: Train = None,
    eval: Eval = None,
    store: Store = None,
    levels: Levels = None,
    scorer: Scorer = "fisher",
    pattern: PatternOption = "structured",
    recover: RecoverOption = None,
    rounds: RoundsOption = 1,
    precision: PrecisionsOption = "float32",
    as_json: AsJson = False,
) -> None:
    """Score a model once and build its ladder of variants.

    Everything dear happens here and is cached: run it again and it builds only what is missing; all levels are timed
    side by side if one of them is new. A model of your own needs labelled rows of its own, each with 'text' and
    'label'. Example:

    \b
      sparsedial prepare ./my-bert --train train.jsonl --eval dev.jsonl \\
          --store ./store --levels 0,0.3,0.5,0.7
      sparsedial prepare --precision auto
    """
    with refusals():
        settings = settings_of(levels=levels, scorer=scorer, pattern=pattern, precision="float32")
        precisions = None if precision == "auto" else precisions_of(precision)
        from service.store_commands import Place, prepare_model

        place = Place(model=model, train=train, evaluation=eval, store=store)
        folder, rows, choice = prepare_model(place, settings.levels, scorer, pattern, precisions, recover, rounds)
        _show(rows.levels, rows.cascades, as_json, folder, {"precision": choice.as_dict()} if choice else {})
        if choice:
            say(choice.words())


@app.command(cls=NumberCommand)
def prune(
    sparsity: Annotated[
        str | None, typer.Argument(help="Share of encoder weights to remove: a number in [0, 1).", metavar="SPARSITY")
    ] = None,
    speedup: Annotated[
        float | None,
        typer.Option(
            help="In place of SPARSITY: how many times as fast as the dense model a batch is to be, by what sublayers "
            "take on this machine; --scope is latency then."
        ),
    ] = None,
    model: ModelOption = "embedded",
    train: Train = None,
    eval: Eval = None,
    store: Store = None,
    scorer: Scorer = "fisher",
    pattern: PatternOption = "structured",
    recover: RecoverOption = None,
    scope: ScopeOption = None,
    structures: StructuresOption = None,
    rounds: RoundsOption = 1,
    precision: PrecisionOption = "float32",
    as_json: AsJson = False,
) -> None:
    """Cut a prepared model to one sparsity and store the variant.

    Takes seconds, from the scores that 'sparsedial prepare' or 'serve' has cached for the same rows before; some
    scorers take a pass over the rows of their own when they are first asked for, up to minutes. Example:

    \b
      sparsedial prune 0.55
      sparsedial prune --speedup 2 --scorer obs
      sparsedial prune 0.6 --model ./my-bert --train train.jsonl --eval dev.jsonl --store ./store
    """
    with refusals():
        wish = {
            "scorer": scorer, "pattern": pattern, "recover": recover, "precision": precision, "scope": scope,
            "structures": structures,
        }  # fmt: skip
        if (sparsity is None) == (speedup is None):
            raise SpecError("prune wants a SPARSITY or --speedup, one of the two")
        if speedup is not None:
            sparsity, wish["scope"] = "0", scope or Scope.LATENCY
        spec = PruneSpec.from_dict({"sparsity": number_of(str(sparsity)), "rounds": rounds, **wish})
        from service.store_commands import Place, prune_model

        folder, rows = prune_model(Place(model=model, train=train, evaluation=eval, store=store), spec, speedup)
        if as_json:
            print_json(rows[0])
        else:
            print_frontier(rows)
            say(f"variant in {folder}")


@app.command()
def frontier(
    model: Model = "embedded",
    store: Store = None,
    plot: Annotated[Path | None, typer.Option(help="Also write the picture to this PNG file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what each stored level costs in accuracy and buys in speed.

    Nothing is computed: it reads what 'sparsedial prepare' and 'serve' have measured on this machine. Example:

    \b
      sparsedial frontier --plot frontier.png
    """
    with refusals():
        from service.store_commands import stored_frontier

        folder, rows = stored_frontier(model, store, plot)
        if plot is not None:
            say(f"picture in {plot}")
        _show(rows.levels, rows.cascades, as_json, folder)


@app.command()
def serve(
    model: Model = "embedded",
    host: Annotated[str | None, typer.Option(help="Address to bind. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port of inference and admin. [default: 8000]")] = None,
    replicas: Annotated[int | None, typer.Option(help="Model replicas; one per GPU on GPUs. [default: 1]")] = None,
    max_replicas: Annotated[
        int | None, typer.Option(help="Replicas that load may call for. [default: as --replicas]")
    ] = None,
    replicas_per_node: Annotated[
        int | None, typer.Option(help="Most replicas on one machine of a cluster. Default: spread by Ray.")
    ] = None,
    store: Store = None,
    sparsity: Annotated[
        float | None, typer.Option(help="Sparsity to begin with, where nothing was committed yet. [default: 0]")
    ] = None,
    device: Annotated[Device | None, typer.Option(help="Where to compute. [default: auto]")] = None,
    engine: Annotated[
        EngineName | None,
        typer.Option(help="What computes on CPUs; openvino is an extra, auto the faster of both. [default: auto]"),
    ] = None,
    train: Train = None,
    eval: Eval = None,
    levels: Levels = None,
    precision: Annotated[
        str | None,
        typer.Option(help="One, or several such as bfloat16,int8: the first is the usual one. [default: float32]"),
    ] = None,
    recover: Annotated[
        Recover | None,
        typer.Option(help="Recovery of the ladder; sequential is better, and slower. [default: the usual one]"),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Rounds of the ladder's cuts, for deep levels; minutes each. [default: 1]")
    ] = None,
    max_batch_tokens: Annotated[int | None, typer.Option(help="Token budget of a batch. [default: 4096]")] = None,
    ingress: Annotated[
        Ingress | None, typer.Option(help="haproxy (fast) or proxy (Ray Serve's default). [default: haproxy]")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join: auto or host:port. Default: a local one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve a model over HTTP, its sparsity a live dial.

    The first start scores the model and builds its ladder; later ones are immediate, and come back on the variant
    that was committed last. Stop with Ctrl-C or SIGTERM: requests in flight are finished. Every setting, those
    without a flag too, is a SPARSEDIAL_* variable; a flag goes before its variable. Example:

    \b
      sparsedial serve --port 9000 --sparsity 0.5
      SPARSEDIAL_ACCURACY_FLOOR=0.88 sparsedial serve ./my-bert --train train.jsonl --eval dev.jsonl
    """
    with refusals():
        settings = settings_of(
            model=model, host=host, port=port, replicas=replicas, max_replicas=max_replicas,
            replicas_per_node=replicas_per_node, store=store, sparsity=sparsity, device=device,
            engine=engine, train=train, eval=eval, levels=levels, precision=precision,
            recover=recover, rounds=rounds,
            max_batch_tokens=max_batch_tokens, ingress=ingress, address=address,
        )  # fmt: skip
        from service.launcher import launch

        raise typer.Exit(launch(settings, as_json=as_json))


app.command()(pretrain)
app.command("import")(import_)
app.command()(recover)
app.command()(bench)
app.command()(compare)
app.command(cls=NumberCommand)(dial)
app.command(cls=NumberCommand)(plan)
app.command()(rollback)
app.command()(status)
app.command()(policy)


Rows = list[dict[str, Any]]


def _show(levels: Rows, cascades: Rows, as_json: bool, store: Path, others: Mapping[str, Any] | None = None) -> None:
    if as_json:
        print_json({"store": str(store), "levels": levels, "cascades": cascades, **(others or {})})
    else:
        print_frontier(levels)
        print_cascades(cascades)
        say(f"store: {store}")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
