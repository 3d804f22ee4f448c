"""Cut a model to every level with every scorer, recovery and kind of structure, and print the metrics.

No retraining: scores and Gram matrices come from training rows, the metric from rows that took no part.

    python scripts/no_retraining_table.py embedded/model --train TRAIN --eval VALIDATION --store STORE
"""

from workbench_arguments import calibrated_workbench, workbench_parser

from pruning.frontier import measure_side_by_side
from pruning.pipeline import build_variant
from pruning.scores import SCORERS
from pruning.spec import PruneSpec, Recover, Structures, way_of
from pruning.variants import Manifest
from pruning.workbench import Workbench

UNTRAINED = (Recover.NONE, Recover.RECONSTRUCT, Recover.SEQUENTIAL)
LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def main() -> None:
    """Print a Markdown table, one row for each way to cut, what the cuts took and, if asked for, how fast they are."""
    parser = workbench_parser(__doc__)
    parser.add_argument("--scorers", default=",".join(SCORERS), help="names, comma-separated; default: all")
    parser.add_argument("--recover", default=",".join(UNTRAINED), help="names, comma-separated; default: all")
    parser.add_argument("--structures", default=Structures.HEADS.value, help="names, comma-separated")
    parser.add_argument("--levels", default=",".join(map(str, LEVELS)), help="sparsities, comma-separated")
    parser.add_argument("--speed", action="store_true", help="time all cuts and the dense model side by side")
    options = parser.parse_args()
    levels = [float(level) for level in options.levels.split(",")]
    bench = calibrated_workbench(options)
    dense = build_variant(bench, PruneSpec(sparsity=0.0))
    metric = dense.evaluation.metric
    interval = f"{metric.low:.2%} to {metric.high:.2%}"
    others = dict(dense.evaluation.others)
    print(f"dense: {metric.name} {metric.value:.2%} ({interval}), {dense.evaluation.rows} rows, {others}\n")
    print("| scorer | recovery | structures | " + " | ".join(f"{level:.0%}" for level in levels) + " |")
    print("| --- | --- | --- |" + " --- |" * len(levels))
    slowest: dict[str, float] = {}
    made = []
    for scorer in options.scorers.split(","):
        for recover in options.recover.split(","):
            for structures in options.structures.split(","):
                wish = {"scorer": scorer, "recover": recover, "structures": structures}
                cuts = [build_variant(bench, PruneSpec.from_dict({**wish, "sparsity": level})) for level in levels]
                values = [cut.evaluation.metric.value for cut in cuts]
                cells = [f"{value:.2%} ({100 * (value - metric.value):+.2f})" for value in values]
                print(f"| {scorer} | {recover} | {structures} | " + " | ".join(cells) + " |", flush=True)
                for cut in cuts[1:]:  # the first cut of a scorer also solves its curves
                    slowest[recover] = max(slowest.get(recover, 0.0), cut.build_seconds["cut"])
                made += cuts
    for recover, seconds in slowest.items():
        print(f"\nslowest cut with recovery {recover!r}, mask to weights of the whole model: {seconds:.2f} s")
    if options.speed:
        print_speeds(bench, dense, made)


def print_speeds(bench: Workbench, dense: Manifest, cuts: list[Manifest]) -> None:
    """Print what each cut computes and how fast it is, all timed in turn."""
    speeds = measure_side_by_side(bench, [dense, *cuts])
    base = speeds[dense.variant_id]
    print("\n| cut | achieved | metric | MACs | speed (ideal) | one text, of the dense model's time |")
    print("| --- | --- | --- | --- | --- | --- |")
    for cut in cuts:
        speed, ideal = speeds[cut.variant_id], dense.cost.macs / cut.cost.macs
        print(
            f"| {way_of(cut.spec.as_dict())}, {cut.spec.sparsity:.0%} | {cut.achieved_sparsity:.3f} | "
            f"{cut.evaluation.metric.value:.2%} | {cut.cost.macs / 1e6:.0f} M | "
            f"{speed.items_per_s / base.items_per_s:.2f} ({ideal:.2f}) | "
            f"{speed.latency_p50_ms / base.latency_p50_ms:.0%} |"
        )


if __name__ == "__main__":
    main()
