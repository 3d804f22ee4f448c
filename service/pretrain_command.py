"""``sparsedial pretrain``: its options, and how its result is shown."""

from pathlib import Path
from typing import Annotated

import typer

from pruning.errors import SpecError
from service.options import AsJson, refusals
from service.recover_command import UNFINISHED
from service.settings import Device
from service.terminal import print_json, say

MINUTES = 60.0
"""Bound of a run that is given none."""


def pretrain(
    model: Annotated[
        str, typer.Argument(help="Model directory or hub id of the dense encoder, with any head or none.")
    ],
    text: Annotated[Path, typer.Option(help="Plain text: rows with 'text', .jsonl or .jsonl.gz.")],
    out: Annotated[Path, typer.Option(help="Folder of the sparse encoder, to be made.")],
    sparsity: Annotated[float, typer.Option(help="Share of the encoder's weights that go: a number in (0, 1).")] = 0.85,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the training; without --minutes its result is always the same.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help=f"Longest training. [default: {MINUTES:g}, if --steps is not given]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the same training was interrupted.")] = False,
    scope: Annotated[
        str, typer.Option(help="Among which weights sizes are compared: layerwise, global or row.")
    ] = "layerwise",
    length: Annotated[int, typer.Option(help="Most tokens of a piece of text, at most what the model reads.")] = 64,
    pieces: Annotated[int, typer.Option(help="Most pieces of text that are read.")] = 100_000,
    batch_rows: Annotated[int, typer.Option(help="Pieces of one step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 5e-4,
    gradual: Annotated[float, typer.Option(help="Share of the training over which weights go, in (0, 1].")] = 0.6,
    seed: Annotated[int, typer.Option(help="Of the held-out pieces and the order of the others.")] = 0,
    device: Annotated[Device, typer.Option(help="Where to train; auto takes a GPU if there is one.")] = Device.AUTO,
    as_json: AsJson = False,
) -> None:
    """Make one sparse encoder for many tasks from plain text.

    Single weights go by size, more and more of them, while the encoder learns to give the hidden states of the dense
    one (Prune Once For All). What comes of it is a model folder like the first one, whose zeros fine-tuning can lock;
    'sparsedial import' then serves it. Checkpoints are kept meanwhile beside --out: stop it, or let it be killed, and
    --resume goes on. Example:

    \b
      sparsedial pretrain ./bert --text wikipedia.jsonl.gz --sparsity 0.85 --steps 10000 --out ./bert-sparse
    """
    with refusals():
        if not 0.0 < gradual <= 1.0:
            raise SpecError(f"gradual must be a share in (0, 1]; got {gradual}")
        from pruning.pretraining.sparse_encoder import SparseEncoder, pretrain, pretraining_recipe
        from service.recovering import device_named
        from service.sources import model_dir
        from service.training_bar import training_bar

        wish = SparseEncoder.of(sparsity, scope, length=length, pieces=pieces)
        bounded = MINUTES if minutes is None and steps is None else minutes
        recipe = pretraining_recipe(
            steps=steps, minutes=bounded, batch_rows=batch_rows, learning_rate=learning_rate, gradual=gradual, seed=seed
        )
        where = device_named(device)
        try:
            with training_bar(f"pre-training at {sparsity:g}") as report:
                went = pretrain(model_dir(model), text, wish, recipe, out, resume=resume, device=where, report=report)
        except KeyboardInterrupt:
            say("sparsedial: stopped before the end; the same command with --resume goes on", style="yellow")
            raise typer.Exit(UNFINISHED) from None
        if as_json:
            print_json({"out": str(out), **went})
            return
        training = went["training"]
        say(
            f"{training['step']} steps in {training['seconds'] / 60:.1f} minutes; {training['best_score']:.1%} of the "
            f"dense hidden states are met; the sparse encoder is in {out}"
        )
