"""Compare cascades with single levels of the same mean cost, and print the metric of both.

Every cascade of the ladder stands beside a single level that is cut to cost what the cascade costs on average, in
multiply-accumulates. Thresholds come from training rows, the metric from rows that took no part.

    python scripts/cascade_table.py embedded/model --train TRAIN --eval VALIDATION --store STORE
"""

from collections.abc import Sequence

import numpy as np
from workbench_arguments import calibrated_workbench, workbench_parser

from pruning.cascade_rows import cascade_rows
from pruning.cascades import calibrate_cascades
from pruning.frontier import frontier_rows
from pruning.pipeline import build_variant
from pruning.spec import PruneSpec
from pruning.variants import Manifest
from pruning.workbench import Workbench

LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def main() -> None:
    """Print a Markdown table, one row per cascade."""
    parser = workbench_parser(__doc__)
    parser.add_argument("--scorer", default="fisher", help="importance scorer; default: fisher")
    options = parser.parse_args()
    bench = calibrated_workbench(options)
    ladder = [build_variant(bench, PruneSpec(sparsity=level, scorer=options.scorer)) for level in (0.0, *LEVELS)]
    calibrate_cascades(bench, ladder)
    levels = frontier_rows(bench.store, bench.base.digest, only=[manifest.variant_id for manifest in ladder])
    dense = ladder[0]
    print(f"dense: {dense.evaluation.metric.name} {dense.evaluation.metric.value:.2%}, {dense.evaluation.rows} rows\n")
    print("| level | agreement wanted | handed on | mean MACs | cascade | single level | difference | its agreement |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    differences = []
    for row in cascade_rows(bench.store, levels):
        share = row["macs"] / dense.cost.macs
        cells = f"| {row['requested_sparsity']:g} | {row['agreement_target']:g} "
        cells += f"| {row['escalated']:.1%} | {share:.1%} |"
        if share >= 1.0:
            print(f"{cells} costs more than the dense model | | | |")
            continue
        single = _at_cost(bench, ladder, row["macs"], options.scorer)
        value, other = row["metric_value"], single.evaluation.metric.value
        differences.append(100 * (value - other))
        print(
            f"{cells} {value:.2%} (agrees {row['agreement']:.1%}) | {single.spec.sparsity:g}: {other:.2%} | "
            f"{differences[-1]:+.2f} | {single.evaluation.agreement:.1%} |",
            flush=True,
        )
    if differences:
        above = sum(difference > 0 for difference in differences)
        print(f"\n{above} of {len(differences)} above, mean difference {np.mean(differences):+.2f} points")


def _at_cost(bench: Workbench, ladder: Sequence[Manifest], macs: float, scorer: str) -> Manifest:
    """Return the single level that multiplies as often as ``macs`` says, to the hundredth of sparsity."""
    known = sorted((manifest.cost.macs, manifest.spec.sparsity) for manifest in ladder)
    sparsity = float(np.interp(macs, [one for one, _ in known], [level for _, level in known]))
    return build_variant(bench, PruneSpec(sparsity=round(sparsity, 2), scorer=scorer))


if __name__ == "__main__":
    main()
