"""Cut a model to every level with every scorer, number of rounds and recovery, and print the metrics.

No retraining: scores and Gram matrices come from training rows, the metric from rows that took no part.

    python scripts/no_retraining_table.py embedded/model --train TRAIN --eval VALIDATION --store STORE
"""

from itertools import product

from workbench_arguments import calibrated_workbench, workbench_parser

from pruning.pipeline import build_variant
from pruning.scores import SCORERS
from pruning.spec import Pattern, PruneSpec, Recover

UNTRAINED = (Recover.NONE, Recover.RECONSTRUCT, Recover.SEQUENTIAL)
LEVELS = "0.3,0.4,0.5,0.6,0.7,0.8"


def main() -> None:
    """Print a Markdown table, one row per scorer and recovery, and what the cuts took."""
    parser = workbench_parser(__doc__)
    parser.add_argument("--scorers", default=",".join(SCORERS), help="names, comma-separated; default: all")
    parser.add_argument("--recover", default=",".join(UNTRAINED), help="names, comma-separated; default: all")
    parser.add_argument("--levels", default=LEVELS, help=f"sparsities, comma-separated; default: {LEVELS}")
    parser.add_argument("--rounds", default="1", help="numbers of rounds, comma-separated; default: 1")
    parser.add_argument("--pattern", default=Pattern.STRUCTURED.value, help="default: structured")
    options = parser.parse_args()
    levels = [float(level) for level in options.levels.split(",")]
    bench = calibrated_workbench(options)
    evaluation = build_variant(bench, PruneSpec(sparsity=0.0)).evaluation
    dense = evaluation.metric
    interval = f"{dense.low:.2%} to {dense.high:.2%}"
    print(f"dense: {dense.name} {dense.value:.2%} ({interval}), {evaluation.rows} rows, {dict(evaluation.others)}\n")
    print("| scorer | rounds | recovery | " + " | ".join(f"{level:.0%}" for level in levels) + " |")
    print("| --- | --- | --- |" + " --- |" * len(levels))
    slowest: dict[str, float] = {}
    for scorer in options.scorers.split(","):
        for rounds, recover in product(options.rounds.split(","), options.recover.split(",")):
            cells = []
            for level in levels:
                spec = PruneSpec(
                    sparsity=level,
                    pattern=Pattern(options.pattern),
                    scorer=scorer,
                    recover=Recover(recover),
                    rounds=int(rounds),
                )
                manifest = build_variant(bench, spec)
                value = manifest.evaluation.metric.value
                cells.append(f"{value:.2%} ({100 * (value - dense.value):+.2f})")
                if level != levels[0]:  # the first cut of a scorer also solves its curves
                    slowest[recover] = max(slowest.get(recover, 0.0), manifest.build_seconds["cut"])
            print(f"| {scorer} | {rounds} | {recover} | " + " | ".join(cells) + " |", flush=True)
    for recover, seconds in slowest.items():
        print(f"\nslowest cut with recovery {recover!r}, mask to weights of the whole model: {seconds:.2f} s")


if __name__ == "__main__":
    main()
