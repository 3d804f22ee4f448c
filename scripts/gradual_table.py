r"""Train a model to one sparsity by every criterion of gradual cutting, and print what each is worth.

    python scripts/gradual_table.py embedded/model --train TRAIN --eval VALIDATION --store STORE \
        --pattern unstructured --scorer magnitude --sparsity 0.9 --steps 300

Beside them stands the cut that is made at once by ``--scorer`` and then trained as long. All ``--train`` rows are
trained on, with the dense model as the teacher; what goes bit by bit begins at a tenth of the run and is gone at six
tenths. A run that is in the store already is not trained again.
"""

import time
from dataclasses import replace

from workbench_arguments import calibrated_workbench, workbench_parser

from pruning.material import labelled_rows
from pruning.pipeline import build_variant
from pruning.recovery.criteria import STRUCTURE_CRITERIA, WEIGHT_CRITERIA
from pruning.recovery.distillation import recover
from pruning.recovery.recipe import Recipe, criterion_named
from pruning.spec import Pattern, PruneSpec


def main() -> None:
    """Print a Markdown table, one row per criterion."""
    parser = workbench_parser(__doc__)
    parser.add_argument("--pattern", default="unstructured", choices=("unstructured", "structured"))
    parser.add_argument("--scorer", default="magnitude", help="of the cut at once, and of how many structures go where")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--steps", type=int, default=300, help="of every training, 32 rows each")
    parser.add_argument("--criteria", help="names, comma-separated; default: all that go with the pattern")
    options = parser.parse_args()
    bench = calibrated_workbench(options)
    rows = labelled_rows(bench.base, options.train)
    spec = PruneSpec(sparsity=options.sparsity, pattern=Pattern(options.pattern), scorer=options.scorer)
    known = STRUCTURE_CRITERIA if spec.pattern is Pattern.STRUCTURED else WEIGHT_CRITERIA
    names = [criterion_named(name) for name in options.criteria.split(",")] if options.criteria else list(known)
    at_once = Recipe(steps=options.steps, held_out_rows=512)
    slowly = replace(at_once, gradual_from=0.1, gradual=0.6, cut_every=10)
    recipes = {f"at once, by {spec.scorer}": at_once}
    recipes |= {f"bit by bit, by {name}": replace(slowly, criterion=name) for name in names}

    dense = build_variant(bench, PruneSpec(sparsity=0.0)).evaluation.metric
    print(f"dense: {dense.name} {dense.value:.2%} ({dense.low:.2%} to {dense.high:.2%})\n")
    print(
        f"| {spec.pattern}, {spec.sparsity:.0%}, {options.steps} steps | {dense.name} | lost, points | processor, s |"
    )
    print("| --- | --- | --- | --- |", flush=True)
    for way, recipe in recipes.items():
        started = time.process_time()
        value = recover(bench, spec, rows, recipe)[0].evaluation.metric.value
        seconds = time.process_time() - started
        print(f"| {way} | {value:.2%} | {100 * (dense.value - value):.2f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
