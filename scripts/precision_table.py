"""Build every level in every precision and print accuracy and speed, the speeds measured side by side in one run.

python scripts/precision_table.py embedded/model --train TRAIN --eval VALIDATION --store STORE
"""

from workbench_arguments import open_workbench

from pruning.frontier import measure_side_by_side
from pruning.pipeline import build_variant
from pruning.spec import Precision, PruneSpec

LEVELS = (0.0, 0.3, 0.5, 0.7)


def main() -> None:
    """Print a Markdown table, one row per level and precision."""
    bench = open_workbench(__doc__)
    manifests = [
        build_variant(bench, PruneSpec(sparsity=level, precision=precision))
        for level in LEVELS
        for precision in Precision
    ]
    speeds = measure_side_by_side(bench, manifests)
    print("| sparsity | precision | accuracy | agreement | MB | texts/s in batches | times float32 | one text, ms |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    exact = manifests[0]
    for manifest in manifests:
        if manifest.spec.precision is Precision.FLOAT32:
            exact = manifest
        speed, worth = speeds[manifest.variant_id], manifest.evaluation
        times = speed.items_per_s / speeds[exact.variant_id].items_per_s
        change = 100 * (worth.accuracy - exact.evaluation.accuracy)
        print(
            f"| {manifest.spec.sparsity:g} | {manifest.spec.precision} | {worth.accuracy:.2%} ({change:+.2f}) "
            f"| {worth.agreement:.1%} | {manifest.cost.bytes / 1e6:.1f} | {speed.items_per_s:.0f} | {times:.2f} "
            f"| {speed.latency_p50_ms:.2f} |"
        )


if __name__ == "__main__":
    main()
