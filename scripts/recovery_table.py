r"""Cut a model to deep levels, train each cut against the dense model, and print what is lost and what it took.

    python scripts/recovery_table.py embedded/model --train TRAIN --eval VALIDATION --store STORE \
        --scorer obs --levels 0.6,0.7,0.8,0.9,0.95 --steps 2000

All ``--train`` rows train but those held out; ``--eval`` rows judge once, at the end. It is ``sparsedial recover`` with
its usual recipe, level by level. A level that is in the store already is not trained again, and one that was
interrupted goes on.
"""

import argparse
from dataclasses import fields

from workbench_arguments import calibrated_workbench, workbench_parser

from pruning.material import labelled_rows
from pruning.pipeline import build_variant
from pruning.recovery.distillation import recover
from pruning.recovery.recipe import Recipe
from pruning.spec import PruneSpec

USUAL = {field.name: field.default for field in fields(Recipe)}


def main() -> None:
    """Print a Markdown table, one row per level."""
    options = parsed()
    bench = calibrated_workbench(options)
    rows = labelled_rows(bench.base, options.train)
    recipe = Recipe(steps=options.steps, batch_rows=options.batch_rows, learning_rate=options.learning_rate)
    dense = build_variant(bench, PruneSpec(sparsity=0.0)).evaluation
    interval = f"{dense.metric.low:.2%} to {dense.metric.high:.2%}"
    print(f"dense: {dense.metric.name} {dense.metric.value:.2%} ({interval}), {dense.rows} rows; {recipe.as_dict()}\n")
    print(f"| sparsity | heads; neurons | held out, before | held out, best | {dense.metric.name} | lost | steps | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for level in options.levels.split(","):
        manifest, recovered = recover(
            bench, PruneSpec(sparsity=float(level), scorer=options.scorer), rows, recipe, resume=True
        )
        value, went = manifest.evaluation.metric.value, recovered.training
        widths = f"{' '.join(map(str, manifest.heads))}; {' '.join(map(str, manifest.neurons))}"
        print(
            f"| {float(level):.0%} | {widths} | {went['first_score']:.2%} | {went['best_score']:.2%} | {value:.2%} | "
            f"{100 * (dense.metric.value - value):.2f} | {went['step']} | {went['seconds']:.0f} |",
            flush=True,
        )


def parsed() -> argparse.Namespace:
    """Return the arguments."""
    parser = workbench_parser(__doc__)
    parser.add_argument("--scorer", default="obs", help="which heads and neurons go")
    parser.add_argument("--levels", default="0.6,0.7,0.8,0.9,0.95", help="sparsities, comma-separated")
    parser.add_argument("--steps", type=int, default=2000, help="of the training of every level")
    parser.add_argument("--batch-rows", type=int, default=USUAL["batch_rows"], help="rows of one step")
    parser.add_argument("--learning-rate", type=float, default=USUAL["learning_rate"], help="highest one")
    return parser.parse_args()


if __name__ == "__main__":
    main()
