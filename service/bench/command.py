"""``sparsedial bench``: its options, and how its report is shown."""

from pathlib import Path
from typing import Annotated

import typer

from pruning.errors import SpecError
from pruning.spec import precisions_of
from service.options import AsJson, Eval, Levels, Model, Store, Train, refusals, settings_of
from service.pictures import drawing, require_png
from service.terminal import print_json, print_table, say

SECONDS = 2.0


def bench(
    model: Model = "embedded",
    train: Train = None,
    eval: Eval = None,
    store: Store = None,
    levels: Levels = None,
    precision: Annotated[
        str,
        typer.Option(help="float32, bfloat16, int8, or several: float32,bfloat16.", envvar="SPARSEDIAL_PRECISION"),
    ] = "float32",
    texts: Annotated[
        Path | None, typer.Option(help="Texts to answer: one per line, or JSON Lines. Default: the --eval rows.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Length of one reading.", min=0.1)] = SECONDS,
    http: Annotated[bool, typer.Option(help="Also start a service and measure it over HTTP.")] = True,
    shape: Annotated[
        str | None,
        typer.Option(help="bert-base or bert-large with random weights, in place of MODEL; the engine alone."),
    ] = None,
    lengths: Annotated[
        str, typer.Option(help="With --shape: tokens of the sequences, in turn, such as 32,128,384.")
    ] = "128",
    plot: Annotated[Path | None, typer.Option(help="Also write the picture to this PNG file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what each level reaches here, and where the time goes.

    The engine alone in batches of 32, beside the best rate of one matrix on this machine; then a service of its own, on
    a copy of the store, in batches of 32 and with single texts from 32 clients and from one. A sentence for each says
    which stage limits, and what sparsity can at most buy. Clients and service share this machine. Levels that the
    store lacks are made first. Example:

    \b
      sparsedial bench --plot bench.png
      sparsedial bench ./my-bert --train train.jsonl --eval dev.jsonl --precision float32,int8
      sparsedial bench --shape bert-base --levels 0,0.5,0.8 --lengths 32,128
    """
    with refusals():
        settings = settings_of(levels=levels, precision="float32")  # those of the ladders are given on their own
        chosen = precisions_of(precision)
        require_png(plot)
        from service.bench.report import document_of
        from service.bench.run import bench_model, bench_shape
        from service.bench.tables import STAGES_LINE, circumstances, stage_table, throughput_table, verdicts
        from service.store_commands import Place

        if shape is None:
            place = Place(model=model, train=train, evaluation=eval, store=store)
            report = bench_model(place, settings, chosen, texts, seconds, http=http)
        else:
            report = bench_shape(shape, settings, chosen, _lengths(lengths), seconds)
        if plot is not None:
            from service.bench.plot import plot_report

            with drawing(plot):
                plot_report(report, plot)
            say(f"picture in {plot}")
        if as_json:
            print_json(document_of(report))
            return
        typer.echo(circumstances(report))
        print_table(throughput_table(report))
        typer.echo(f"\n{STAGES_LINE}")
        print_table(stage_table(report))
        typer.echo("\n" + "\n".join(verdicts(report)))


def _lengths(words: str) -> list[int]:
    try:
        return [int(word) for word in words.split(",")]
    except ValueError:
        raise SpecError(f"--lengths must be whole numbers of tokens, such as 32,128,384; got {words!r}") from None
