"""The ``sparsedial`` command: every subcommand, thin over the pipeline and the admin API.

Exit codes: 0 done; 1 the service refused or a change failed; 2 bad input; 3 no service answers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from pruning.encoder import load_base_model
from pruning.errors import PruningError
from pruning.frontier import frontier_rows, measure_side_by_side
from pruning.pipeline import build_variant
from pruning.spec import PruneSpec
from pruning.variants import VariantStore
from pruning.workbench import Workbench
from service.admin_client import DEFAULT_URL, AdminClient, AdminError
from service.ladder import ladder_specs, prepare_ladder
from service.running import find_token
from service.settings import Device, Ingress, Settings
from service.sources import default_store, model_dir, rows_of
from service.terminal import frontier_table, print_json, progress_bar, spinner, stderr

app = typer.Typer(
    name="sparsedial",
    help="Serve a BERT classifier whose cost is a live dial.",
    epilog="Start with 'sparsedial serve': it serves the embedded model and prints what to try next.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Model = Annotated[str, typer.Argument(help="Model directory, hub id, or 'embedded'.", envvar="SPARSEDIAL_MODEL")]
Train = Annotated[Path | None, typer.Option(help="Labelled rows that score the model.", envvar="SPARSEDIAL_TRAIN")]
Eval = Annotated[Path | None, typer.Option(help="Other labelled rows that judge its cuts.", envvar="SPARSEDIAL_EVAL")]
Store = Annotated[Path | None, typer.Option(help="Folder of scores and variants.", envvar="SPARSEDIAL_STORE")]
Levels = Annotated[
    str | None, typer.Option(help="Ladder of sparsities, such as 0,0.3,0.5.", envvar="SPARSEDIAL_LEVELS")
]
Scorer = Annotated[
    str, typer.Option(help="Importance scorer: fisher, taylor or magnitude.", envvar="SPARSEDIAL_SCORER")
]
PatternOption = Annotated[
    str, typer.Option("--pattern", help="structured or unstructured.", envvar="SPARSEDIAL_PATTERN")
]
RecoverOption = Annotated[
    str | None, typer.Option("--recover", help="reconstruct or none. Default: the pattern's usual one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Url = Annotated[str, typer.Option(help="Address of the service.", envvar="SPARSEDIAL_URL")]
Token = Annotated[
    str | None,
    typer.Option(
        help="Admin token. Default: found for a service of this user and machine.", envvar="SPARSEDIAL_ADMIN_TOKEN"
    ),
]
Wait = Annotated[float, typer.Option(help="Seconds to wait for the change to be committed.", min=0, max=300)]


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn typed errors into one line on stderr and an exit code."""
    try:
        yield
    except (PruningError, ValidationError) as error:
        stderr.print(f"sparsedial: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    except AdminError as error:
        stderr.print(f"sparsedial: {error}", style="red", markup=False)
        raise typer.Exit(error.exit_code) from None


def _settings(**given: Any) -> Settings:
    """Return settings from the options that were given; the rest comes from the environment and defaults."""
    return Settings(**{name: value for name, value in given.items() if value is not None})


def _open(model: str, train: Path | None, evaluation: Path | None, store: Path | None) -> Workbench:
    folder = model_dir(model)
    return Workbench.open(folder, *rows_of(folder, train, evaluation), store or default_store(folder))


def _calibrated(bench: Workbench) -> None:
    with progress_bar("scoring the model") as update:
        bench.calibrate(update)


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
    as_json: AsJson = False,
) -> None:
    """Score a model once and build its ladder of variants.

    Everything dear happens here and is cached: run it again and it only builds what is missing. Example:

        sparsedial prepare ./my-bert --train train.jsonl --eval dev.jsonl --store ./store --levels 0,0.3,0.5,0.7
    """
    with _refusals():
        settings = _settings(levels=levels, scorer=scorer, pattern=pattern)
        specs = ladder_specs(settings.levels, scorer, pattern, recover)
        bench = _open(model, train, eval, store)
        _calibrated(bench)
        manifests = prepare_ladder(bench, specs)
        with progress_bar("timing the levels side by side") as update:
            measure_side_by_side(bench, manifests, update)
        wanted = {manifest.variant_id for manifest in manifests}
        rows = [row for row in frontier_rows(bench.store, bench.base.digest) if row["variant"] in wanted]
        _show(rows, as_json, bench.root)


@app.command()
def prune(
    sparsity: Annotated[float, typer.Argument(help="Share of encoder weights to remove, in [0, 1).")],
    model: Annotated[
        str, typer.Option(help="Model directory, hub id, or 'embedded'.", envvar="SPARSEDIAL_MODEL")
    ] = "embedded",
    train: Train = None,
    eval: Eval = None,
    store: Store = None,
    scorer: Scorer = "fisher",
    pattern: PatternOption = "structured",
    recover: RecoverOption = None,
    as_json: AsJson = False,
) -> None:
    """Cut a prepared model to one sparsity, from the cached scores, and store the variant.

    Takes seconds; needs 'sparsedial prepare' (or a first 'serve') once before. Example: sparsedial prune 0.55
    """
    with _refusals():
        spec = PruneSpec(sparsity=sparsity, scorer=scorer, pattern=pattern, recover=recover)  # type: ignore[arg-type]
        bench = _open(model, train, eval, store)
        with spinner(f"cutting {bench.base.name} to {sparsity:g}") as tell:
            manifest = build_variant(bench, spec, tell)
        rows = [row for row in frontier_rows(bench.store, bench.base.digest) if row["variant"] == manifest.variant_id]
        if as_json:
            print_json(rows[0])
        else:
            stderr.print(frontier_table(rows))
            stderr.print(f"variant {manifest.variant_id} in {bench.store.folder / manifest.variant_id}", markup=False)


@app.command()
def frontier(
    model: Model = "embedded",
    store: Store = None,
    plot: Annotated[Path | None, typer.Option(help="Also write the picture to this PNG file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what each stored level costs in accuracy and buys in speed on this machine."""
    with _refusals():
        folder = model_dir(model)
        base = load_base_model(folder)
        root = store or default_store(folder)
        rows = frontier_rows(VariantStore(root), base.digest)
        if not rows:
            raise PruningError(f"no variants of {base.name} in {root}; run 'sparsedial prepare' first")
        if plot is not None:
            from pruning.plot import plot_frontier

            plot_frontier(rows, plot, f"{base.name}: the frontier on this machine")
            stderr.print(f"picture in {plot}", markup=False)
        _show(rows, as_json, root)


@app.command()
def serve(
    model: Model = "embedded",
    host: Annotated[str | None, typer.Option(help="Address to bind. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port of inference and admin. [default: 8000]")] = None,
    replicas: Annotated[int | None, typer.Option(help="Model replicas; one per GPU on GPUs. [default: 1]")] = None,
    store: Store = None,
    sparsity: Annotated[
        float | None, typer.Option(help="Sparsity to begin with, where nothing was committed yet. [default: 0]")
    ] = None,
    device: Annotated[Device | None, typer.Option(help="Where to compute. [default: auto]")] = None,
    train: Train = None,
    eval: Eval = None,
    levels: Levels = None,
    max_batch_tokens: Annotated[int | None, typer.Option(help="Token budget of a batch. [default: 4096]")] = None,
    ingress: Annotated[
        Ingress | None, typer.Option(help="haproxy (fast) or proxy (Ray Serve's default). [default: haproxy]")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join: auto or host:port. Default: a local one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve a model; the first start scores it, later ones are immediate. Stop with Ctrl-C: requests in flight finish.

    Every setting is also a SPARSEDIAL_* variable. Example: sparsedial serve --port 9000 --sparsity 0.5
    """
    from service.launcher import launch

    with _refusals():
        settings = _settings(
            model=model, host=host, port=port, replicas=replicas, store=store, sparsity=sparsity, device=device,
            train=train, eval=eval, levels=levels, max_batch_tokens=max_batch_tokens, ingress=ingress, address=address,
        )  # fmt: skip
        raise typer.Exit(launch(settings, as_json=as_json))


@app.command()
def dial(
    sparsity: Annotated[float, typer.Argument(help="Sparsity to serve, in [0, 1).")],
    scorer: Annotated[str | None, typer.Option(help="Importance scorer.")] = None,
    pattern: Annotated[str | None, typer.Option(help="structured or unstructured.")] = None,
    recover: RecoverOption = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Turn the dial of a running service and wait until every replica answers with the new variant."""
    change = {"sparsity": sparsity, "scorer": scorer, "pattern": pattern, "recover": recover}
    _change(
        lambda client: client.dial({key: value for key, value in change.items() if value is not None}, wait),
        url, token, as_json,
    )  # fmt: skip


@app.command()
def rollback(url: Url = DEFAULT_URL, token: Token = None, wait: Wait = 60.0, as_json: AsJson = False) -> None:
    """Return a running service to the variant it served before the last change."""
    _change(lambda client: client.rollback(wait), url, token, as_json)


@app.command()
def status(url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False) -> None:
    """Show what a running service serves now."""
    with _refusals():
        state = _client(url, token).status()
        if as_json:
            print_json(state)
            return
        stderr.print(
            f"sparsity {state['sparsity']:g} (achieved {state['achieved_sparsity']:.3f}), generation "
            f"{state['generation']}, variant {state['variant']}, accuracy {state['accuracy']:.1%}, "
            f"{len(state['replicas'])} replicas",
            markup=False,
        )
        if state["operation"]:
            stderr.print(f"changing: {state['operation']['id']} is {state['operation']['phase']}", markup=False)


def _change(call: Callable[[AdminClient], dict[str, Any]], url: str, token: str | None, as_json: bool) -> None:
    with _refusals():
        with spinner("waiting for every replica"):
            operation = call(_client(url, token))
        if as_json:
            print_json(operation)
        else:
            stderr.print(
                f"{operation['phase']}: generation {operation['generation']}, variant {operation['variant']}",
                markup=False,
            )


def _client(url: str, token: str | None) -> AdminClient:
    token = token or find_token(url)
    if token is None:
        raise AdminError(f"no admin token for {url}; give --token or set SPARSEDIAL_ADMIN_TOKEN", 2)
    return AdminClient(url, token)


def _show(rows: list[dict[str, Any]], as_json: bool, root: Path) -> None:
    if as_json:
        print_json({"store": str(root), "levels": rows})
    else:
        stderr.print(frontier_table(rows))


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
