"""``sparsedial compare``: its options, and how its result is shown."""

from pathlib import Path
from typing import Annotated

import typer

from pruning.errors import SpecError
from pruning.spec import TWO_FOUR_SPARSITY, Pattern
from service.options import AsJson, Eval, Model, PatternOption, ScopeOption, Store, StructuresOption, Train, refusals
from service.pictures import drawing, require_png
from service.terminal import print_json, print_table, say, work_bar

USUAL_LEVELS = "0.3,0.5,0.7"


def compare(
    model: Model = "embedded",
    scorers: Annotated[
        str | None,
        typer.Option(help="Scorers, such as fisher,wanda, or all. [default: fisher,taylor,magnitude,wanda,random]"),
    ] = None,
    levels: Annotated[
        str | None, typer.Option(help=f"Sparsities to cut to. [default: {USUAL_LEVELS}; with 2:4 0.5]")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Draws of calibration rows, at least 1.")] = 3,
    rows: Annotated[int, typer.Option(help="Calibration rows of each draw, at most.")] = 2048,
    pattern: PatternOption = "structured",
    structures: StructuresOption = None,
    scope: ScopeOption = None,
    recover: Annotated[
        str | None,
        typer.Option(
            help="One or several of none, reconstruct, sequential, distill: none,reconstruct. "
            "Default: reconstruct if structured, none if unstructured."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps for which distill trains each cut, on all rows of --train.")
    ] = None,
    train: Train = None,
    eval: Eval = None,
    store: Store = None,
    plot: Annotated[Path | None, typer.Option(help="Also write the picture to this PNG file.")] = None,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown on stdout, a row a scorer, for documents.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare importance scorers on one model.

    What each costs at each level, and how far they agree on what to keep.

    Every seed draws other calibration rows from --train: --rows of them, and never more than 80 %. Each draw is
    calibrated once for all scorers; then every scorer cuts the model to every level, and all rows of --eval judge each
    cut. Cuts are not stored as variants, only what each is worth: a run that was interrupted goes on where it stopped,
    and a second one is immediate. Example:

    \b
      sparsedial compare --scorers fisher,magnitude,random --levels 0.5,0.7 --plot compare.png
      sparsedial compare ./my-bert --train train.jsonl --eval dev.jsonl \\
          --scorers all --recover none,reconstruct --seeds 5
      sparsedial compare --levels 0.8 --recover reconstruct,distill --steps 300
      sparsedial compare --pattern unstructured --seeds 1 --json
    """
    with refusals():
        if as_json and as_markdown:
            raise SpecError("--json and --markdown are two outputs; choose one")
        require_png(plot)
        from pruning.comparison.report import report_of
        from pruning.comparison.request import USUAL_SCORERS, Comparison, scorers_for
        from pruning.comparison.run import compare as compare_scorers
        from pruning.recovery.recipe import Recipe
        from service.comparison_markdown import markdown_of
        from service.comparison_tables import circumstances, overlap_tables, pattern_words, worth_table
        from service.store_commands import Place

        usual_levels = f"{TWO_FOUR_SPARSITY}" if pattern == Pattern.TWO_FOUR else USUAL_LEVELS
        comparison = Comparison(
            scorers=scorers_for(pattern) if scorers == "all" else USUAL_SCORERS if scorers is None else _words(scorers),
            levels=_numbers(usual_levels if levels is None else levels),
            seeds=seeds,
            rows=rows,
            pattern=pattern,  # type: ignore[arg-type]
            structures=structures,  # type: ignore[arg-type]
            scope=scope,  # type: ignore[arg-type]
            recipe=None if steps is None else Recipe(steps=steps),
            recovers=(None,) if recover is None else _words(recover),  # type: ignore[arg-type]
        )
        material, root = Place(model=model, train=train, evaluation=eval, store=store).load()
        with work_bar("comparing scorers") as watch:
            outcome = compare_scorers(material, root, comparison, watch)
        report = report_of(outcome, material.base.shape)
        if plot is not None:
            _draw(report, plot, f"{model}: {pattern_words(report)} pruning by published criteria")
        if as_json:
            print_json({"model": model, "store": str(root), **report})
            return
        if as_markdown:
            typer.echo(markdown_of(report))
            return
        typer.echo(circumstances(report))
        print_table(worth_table(report))
        for words, table in overlap_tables(report):
            typer.echo(f"\n{words}")
            print_table(table)
        say(f"{outcome.computed} cuts judged now, {report['cells_stored']} stored before; store: {root}")


def _draw(report: dict[str, object], plot: Path, title: str) -> None:
    from pruning.comparison.plot import plot_comparison

    with drawing(plot):
        plot_comparison(report, plot, title)
    say(f"picture in {plot}")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in _words(text))
    except ValueError:
        raise SpecError(f"--levels must be numbers in [0, 1), such as {USUAL_LEVELS}; got {text!r}") from None
