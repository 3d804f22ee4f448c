"""Cut a model to every level with every scorer, with and without reconstruction, and print the accuracy table.

No retraining: scores and Gram matrices come from training rows, accuracy from rows that took no part.

    python scripts/no_retraining_table.py embedded/model --train TRAIN --eval VALIDATION --store STORE
"""

from workbench_arguments import open_workbench

from pruning.pipeline import build_variant
from pruning.scores import SCORERS
from pruning.spec import PruneSpec, Recover

LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def main() -> None:
    """Print a Markdown table, one row per scorer and recovery, and what the cuts took."""
    bench = open_workbench(__doc__)
    dense = build_variant(bench, PruneSpec(sparsity=0.0)).evaluation
    print(f"dense: {dense.accuracy:.2%} ({dense.accuracy_low:.2%} to {dense.accuracy_high:.2%}), {dense.rows} rows\n")
    print("| scorer | reconstruction | " + " | ".join(f"{level:.0%}" for level in LEVELS) + " |")
    print("| --- | --- |" + " --- |" * len(LEVELS))
    slowest = 0.0
    for scorer in SCORERS:
        for recover in (Recover.NONE, Recover.RECONSTRUCT):
            cells = []
            for level in LEVELS:
                manifest = build_variant(bench, PruneSpec(sparsity=level, scorer=scorer, recover=recover))
                change = manifest.evaluation.accuracy - dense.accuracy
                cells.append(f"{manifest.evaluation.accuracy:.2%} ({100 * change:+.2f})")
                if level != LEVELS[0]:  # the first cut of a scorer also reads its curves
                    slowest = max(slowest, manifest.build_seconds["cut"])
            print(f"| {scorer} | {'yes' if recover is Recover.RECONSTRUCT else 'no'} | " + " | ".join(cells) + " |")
    print(f"\nslowest cut from the cache, mask + reconstruction + copy of the whole model: {slowest:.2f} s")


if __name__ == "__main__":
    main()
