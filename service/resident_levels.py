"""The ladder as the governor sees it: what is loaded everywhere, how sparse, how accurate and how fast it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from pruning.frontier import frontier_rows
from pruning.variants import Manifest, VariantStore
from service.governor.levels import Level
from service.operations import Choice


def resident_levels(store: VariantStore, ladder: Sequence[str]) -> dict[Level, Choice]:
    """Return every level of the ladder, with what a rollout needs to serve it. Reads files.

    Speeds are those of the newest run that timed levels side by side.

    Raises:
        pruning.errors.StoreError: a manifest or the stored speeds cannot be read.
    """
    rows: Mapping[str, Mapping[str, Any]] = {row["variant"]: row for row in frontier_rows(store, only=ladder)}
    manifests = [store.manifest(variant_id) for variant_id in ladder]
    usual = manifests[0].spec.precision
    return {
        level_of(
            manifest,
            items_per_s=rows[manifest.variant_id]["items_per_s"],
            shows_precision=manifest.spec.precision is not usual,
        ): Choice.of(manifest)
        for manifest in manifests
    }


def level_of(manifest: Manifest, *, items_per_s: float, shows_precision: bool = False) -> Level:
    """Return a variant as a level of this speed; its name has the precision where that is not the usual one."""
    precision = f" {manifest.spec.precision.value}" if shows_precision else ""
    return Level(
        variant_id=manifest.variant_id,
        name=f"{manifest.spec.sparsity:g}{precision}",
        sparsity=manifest.spec.sparsity,
        accuracy=manifest.evaluation.accuracy,
        items_per_s=items_per_s,
    )
