"""Cut a model to every level by every scorer, number of rounds, recovery and kind of structure, and print the metrics.

No retraining: scores and Gram matrices come from training rows, the metric from rows that took no part.

    python scripts/no_retraining_table.py embedded/model --train TRAIN --eval VALIDATION --store STORE
"""

import time
from itertools import product

import torch
from workbench_arguments import calibrated_workbench, workbench_parser

from pruning.pipeline import build_variant
from pruning.scores import SCORERS
from pruning.slim.convert import build_slim
from pruning.slim.packed import PackedBatch
from pruning.spec import Pattern, PruneSpec, Recover, Structures, way_of
from pruning.variants import Manifest
from pruning.workbench import Workbench

UNTRAINED = (Recover.NONE, Recover.RECONSTRUCT, Recover.SEQUENTIAL)
LEVELS = "0.3,0.4,0.5,0.6,0.7,0.8"
BATCH = 32
TIMINGS = 20


def main() -> None:
    """Print a Markdown table, one row for each way to cut, what the cuts took and, if asked for, how fast they are."""
    parser = workbench_parser(__doc__)
    parser.add_argument("--scorers", default=",".join(SCORERS), help="names, comma-separated; default: all")
    parser.add_argument("--recover", default=",".join(UNTRAINED), help="names, comma-separated; default: all")
    parser.add_argument("--structures", default=Structures.HEADS.value, help="names, comma-separated")
    parser.add_argument("--levels", default=LEVELS, help=f"sparsities, comma-separated; default: {LEVELS}")
    parser.add_argument("--rounds", default="1", help="numbers of rounds, comma-separated; default: 1")
    parser.add_argument("--pattern", default=Pattern.STRUCTURED.value, help="default: structured")
    parser.add_argument("--speed", action="store_true", help="time all cuts and the dense model side by side")
    options = parser.parse_args()
    levels = [float(level) for level in options.levels.split(",")]
    bench = calibrated_workbench(options)
    dense = build_variant(bench, PruneSpec(sparsity=0.0))
    metric = dense.evaluation.metric
    interval = f"{metric.low:.2%} to {metric.high:.2%}"
    others = dict(dense.evaluation.others)
    print(f"dense: {metric.name} {metric.value:.2%} ({interval}), {dense.evaluation.rows} rows, {others}\n")
    print("| scorer | rounds | recovery | structures | " + " | ".join(f"{level:.0%}" for level in levels) + " |")
    print("| --- | --- | --- | --- |" + " --- |" * len(levels))
    slowest: dict[str, float] = {}
    made = []
    for scorer in options.scorers.split(","):
        ways = product(options.rounds.split(","), options.recover.split(","), options.structures.split(","))
        for rounds, recover, structures in ways:
            wish = {"scorer": scorer, "pattern": options.pattern, "recover": recover, "structures": structures}
            wish |= {"rounds": int(rounds)}
            cuts = [build_variant(bench, PruneSpec.from_dict({**wish, "sparsity": level})) for level in levels]
            values = [cut.evaluation.metric.value for cut in cuts]
            cells = [f"{value:.2%} ({100 * (value - metric.value):+.2f})" for value in values]
            print(f"| {scorer} | {rounds} | {recover} | {structures} | " + " | ".join(cells) + " |", flush=True)
            for cut in cuts[1:]:  # the first cut of a scorer also solves its curves
                slowest[recover] = max(slowest.get(recover, 0.0), cut.build_seconds["cut"])
            made += cuts
    for recover, seconds in slowest.items():
        print(f"\nslowest cut with recovery {recover!r}, mask to weights of the whole model: {seconds:.2f} s")
    if options.speed:
        print_speeds(bench, dense, made)


@torch.inference_mode()
def print_speeds(bench: Workbench, dense: Manifest, cuts: list[Manifest]) -> None:
    """Print what each cut computes and what it takes of a processor, all in turn: the best of ``TIMINGS``, on one core.

    Time that the core spends on others does not count, so that the figures hold on a machine that is shared.
    """
    torch.set_num_threads(1)
    texts = sorted(bench.evaluation.sequences[:BATCH], key=lambda sequence: len(sequence.ids))
    batches = [PackedBatch.from_sequences(part) for part in (texts, [texts[len(texts) // 2]])]
    models = [build_slim(bench.base, bench.store.load(one.variant_id)[1]) for one in (dense, *cuts)]
    best = [[float("inf"), float("inf")] for _ in models]
    for _ in range(TIMINGS):
        for model, seconds in zip(models, best, strict=True):
            for index, batch in enumerate(batches):
                model(batch)  # its weights come back into the caches
                started = time.thread_time()
                model(batch)
                seconds[index] = min(seconds[index], time.thread_time() - started)
    print(f"\n| cut | achieved | metric | MACs | speed-up of {BATCH} texts (ideal) | of one text |")
    print("| --- | --- | --- | --- | --- | --- |")
    for cut, seconds in zip(cuts, best[1:], strict=True):
        many, one = (before / after for before, after in zip(best[0], seconds, strict=True))
        print(
            f"| {way_of(cut.spec.as_dict())}, {cut.spec.sparsity:.0%} | {cut.achieved_sparsity:.3f} | "
            f"{cut.evaluation.metric.value:.2%} | {cut.cost.macs / 1e6:.0f} M | "
            f"{many:.2f} ({dense.cost.macs / cut.cost.macs:.2f}) | {one:.2f} |"
        )


if __name__ == "__main__":
    main()
