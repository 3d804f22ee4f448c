"""``sparsedial recover``: its options, and how its result is shown."""

from pathlib import Path
from typing import Annotated

import typer

from pruning.recovery.recipe import Recipe, criterion_named
from pruning.spec import Precision, PruneSpec, Recover
from service.options import (
    AsJson,
    Eval,
    Model,
    PatternOption,
    RoundsOption,
    ScopeOption,
    Scorer,
    Store,
    StructuresOption,
    Train,
    refusals,
)
from service.settings import Device
from service.terminal import print_frontier, print_json, say

MINUTES = 10.0
"""Bound of a run that is given none."""
UNFINISHED = 1
USUAL = Recipe(minutes=MINUTES)
CRITERION_HELP = (
    "By what --gradual cuts: mask_gradient (heads and neurons alone), grain, seven_dynamic, platon or magnitude."
)


def recover(
    model: Model = "embedded",
    sparsity: Annotated[
        float,
        typer.Option(
            help="Share of encoder weights removed, in (0, 1): before the training, or with --gradual along it."
        ),
    ] = 0.8,
    rows: Annotated[
        Path | None, typer.Option(help="Labelled rows to train on, the more the better. Default: all rows of --train.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help=f"Longest training. [default: {MINUTES:g}, if --steps is not given]")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the training; without --minutes its result is always the same.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the same training was interrupted.")] = False,
    train: Train = None,
    eval: Eval = None,
    store: Store = None,
    scorer: Scorer = "fisher",
    pattern: PatternOption = "structured",
    scope: ScopeOption = None,
    structures: StructuresOption = None,
    rounds: RoundsOption = 1,
    batch_rows: Annotated[int, typer.Option(help="Rows of one step.")] = USUAL.batch_rows,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = USUAL.learning_rate,
    temperature: Annotated[float, typer.Option(help="Softens the dense model's answers.")] = USUAL.temperature,
    hidden_weight: Annotated[
        float, typer.Option(help="Weight of the hidden states beside the answers.")
    ] = USUAL.hidden_weight,
    label_weight: Annotated[
        float, typer.Option(help="Share of the rows' own labels in the answers, in [0, 1].")
    ] = USUAL.label_weight,
    gradual: Annotated[
        float, typer.Option(help="Share of the training by which all is gone bit by bit; 0: all at once before it.")
    ] = USUAL.gradual,
    gradual_from: Annotated[
        float, typer.Option(help="Share of the training at which --gradual begins to cut.")
    ] = USUAL.gradual_from,
    criterion: Annotated[str, typer.Option(help=CRITERION_HELP)] = USUAL.criterion.value,
    cut_every: Annotated[int, typer.Option(help="Steps from one cut of --gradual to the next.")] = USUAL.cut_every,
    patience: Annotated[
        int, typer.Option(help="Scores without a gain, once the learning rate falls, after which the training stops.")
    ] = USUAL.patience,
    quantization_aware: Annotated[
        bool, typer.Option("--quantization-aware", help="Round meanwhile as int8 does, and make the int8 variant.")
    ] = USUAL.quantized,
    seed: Annotated[int, typer.Option(help="Of the held-out rows and the order of the others.")] = USUAL.seed,
    device: Annotated[Device, typer.Option(help="Where to train; auto takes a GPU if there is one.")] = Device.AUTO,
    workers: Annotated[
        int,
        typer.Option(
            help="Processes that share every batch; of more than one, each takes a GPU, or a share of the cores."
        ),
    ] = 1,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster whose nodes the workers run on: auto or host:port. Default: this machine.",
            envvar="SPARSEDIAL_ADDRESS",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a cut against the dense model, to keep deep ones accurate.

    The cut, solved as by 'prune --recover sequential', learns the dense model's answers and hidden states on labelled
    rows of the model's own task. A tenth of the rows is held out: it is scored while the training runs, and the best
    weights are kept. The --eval rows are judged once, at the end. The variant joins the store; a service on that store
    swaps to it when asked with "recover": "distill". Checkpoints are kept meanwhile: stop it, or let it be killed, and
    --resume goes on.

    With --workers several processes train what one would, by Ray Train (pip install 'sparsedial[train]'). They read
    model, rows and store by themselves: on several nodes these must lie under the same paths, on a file system that
    they share. Example:

    \b
      sparsedial recover --sparsity 0.8 --minutes 10
      sparsedial recover ./my-bert --train train.jsonl --eval dev.jsonl \\
          --sparsity 0.9 --steps 4000 --resume
      sparsedial recover --sparsity 0.8 --steps 400 --workers 2
      sparsedial dial 0.8 --recover distill
    """
    with refusals():
        bounded = MINUTES if minutes is None and steps is None else minutes
        recipe = Recipe(
            steps=steps, minutes=bounded, batch_rows=batch_rows, learning_rate=learning_rate, temperature=temperature,
            hidden_weight=hidden_weight, label_weight=label_weight, gradual=gradual, gradual_from=gradual_from,
            criterion=criterion_named(criterion), cut_every=cut_every, patience=patience,
            quantized=quantization_aware, seed=seed,
        )  # fmt: skip
        wish = {"sparsity": sparsity, "scorer": scorer, "pattern": pattern, "scope": scope, "rounds": rounds}
        wish |= {"structures": structures, "recover": Recover.DISTILL}
        spec = PruneSpec.from_dict(wish | ({"precision": Precision.INT8} if quantization_aware else {}))
        from service.recovering import recover_model
        from service.store_commands import Place
        from service.training_crew import Hiring

        hiring = Hiring(workers=workers, device=device, address=address)
        place = Place(model=model, train=train, evaluation=eval, store=store)
        try:
            folder, levels, recovered = recover_model(place, spec, rows, recipe, hiring, resume=resume)
        except KeyboardInterrupt:
            say("sparsedial: stopped before the end; the same command with --resume goes on", style="yellow")
            raise typer.Exit(UNFINISHED) from None
        if as_json:
            print_json(
                {"store": str(folder), "levels": levels, "recipe": recovered.recipe, "training": recovered.training}
            )
            return
        print_frontier(levels)
        went = recovered.training
        say(
            f"trained {went['step']} steps in {went['seconds'] / 60:.1f} minutes; held-out {levels[-1]['metric']} "
            f"{went['first_score']:.1%} before, {went['best_score']:.1%} after; store: {folder}"
        )
