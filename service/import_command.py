"""``sparsedial import``: its options, and how its result is shown."""

from collections.abc import Mapping
from typing import Any

import typer
from rich.table import Table

from pruning.spec import IMPORTED, precisions_of
from service.options import AsJson, Eval, PrecisionsOption, Store, Train, refusals
from service.terminal import print_frontier, print_json, print_table, say

Checkpoint = typer.Argument(help="Model directory or hub id of a checkpoint that was pruned before.")


def import_(
    model: str = Checkpoint,
    train: Train = None,
    eval: Eval = None,
    store: Store = None,
    precision: PrecisionsOption = "float32",
    as_json: AsJson = False,
) -> None:
    """Make a servable variant of a checkpoint that is sparse already.

    Its zeros are found, shown by tensor, and told by pattern: whole heads and neurons are taken out, so that the
    matrices are really smaller; other zeros stay where they are, and 'sparsedial recover' leaves them zeros. The
    variant is evaluated, timed and stored like any other, under the scorer "imported". Example:

    \b
      sparsedial import ./sparse-bert --train train.jsonl --eval dev.jsonl --precision float32,int8
      sparsedial dial 0.85 --pattern unstructured --scorer imported
    """
    with refusals():
        precisions = precisions_of(precision)
        from service.importing import import_model
        from service.store_commands import Place

        found = import_model(Place(model=model, train=train, evaluation=eval, store=store), precisions)
        if as_json:
            print_json({"store": str(found.store), "zeros": found.zeros, "levels": found.levels})
            return
        print_table(_table(found.zeros))
        print_frontier(found.levels)
        say(_words(found.zeros, found.levels[-1]["requested_sparsity"]))
        say(f"store: {found.store}")


def _table(zeros: Mapping[str, Any]) -> Table:
    """Return the zeros of every tensor, a row for each layer."""
    layers: dict[str, dict[str, float]] = {}
    for name, share in zeros["by_tensor"].items():
        _, layer, slot, _ = name.split(".")
        layers.setdefault(layer, {})[slot] = share
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True, title="zeros by tensor")
    for heading in ("layer", "heads", "neurons", *layers["0"]):
        table.add_column(heading, justify="right")
    for index, (layer, shares) in enumerate(layers.items()):
        left = (zeros["heads"][index], zeros["neurons"][index])
        table.add_row(layer, *map(str, left), *(f"{share:.1%}" for share in shares.values()))
    return table


def _words(zeros: Mapping[str, Any], asked_for: float) -> str:
    """Return what was found, and how to ask for it."""
    return (
        f"{zeros['sparsity']:.2%} of the encoder's weights are gone, {zeros['pattern']}; a service on this store swaps "
        f"to it with: sparsedial dial {asked_for:g} --pattern {zeros['pattern']} --scorer {IMPORTED}"
    )
