"""The ladder: the levels that are built ahead and kept loaded."""

from collections.abc import Callable, Sequence
from functools import partial

from pruning.frontier import measure_side_by_side, unmeasured
from pruning.pipeline import build_variant
from pruning.scores import scorer_named
from pruning.spec import PruneSpec
from pruning.variants import Manifest
from pruning.workbench import Workbench
from service.terminal import progress_bar, spinner


def ladder_specs(
    levels: Sequence[float], scorer: str, pattern: str, recover: str | None = None, precision: str = "float32"
) -> list[PruneSpec]:
    """Return one spec per level, dense first.

    Raises:
        SpecError: an unknown scorer, pattern, precision or recovery, or a level outside [0, 1); no model is scored
            before.
    """
    return [
        PruneSpec(
            sparsity=level,
            scorer=scorer_named(scorer).name,
            pattern=pattern,  # type: ignore[arg-type]
            recover=recover,  # type: ignore[arg-type]
            precision=precision,  # type: ignore[arg-type]
        )
        for level in sorted({0.0, *levels})
    ]


def prepare_ladder(bench: Workbench, specs: Sequence[PruneSpec]) -> list[Manifest]:
    """Return the variants of ``specs``. Whatever is missing is made now, with a word on each step.

    The model is scored if it was not, levels are built that the store lacks, and unless one run has timed all of them,
    they are timed side by side.

    Raises:
        PruningError: a spec that cannot be built, or a store that cannot be used.
    """
    with progress_bar("scoring the model") as update:
        bench.calibrate(update)
    with spinner("building the ladder") as tell:
        manifests = [
            build_variant(bench, spec, partial(_tell, tell, f"level {spec.sparsity:g}, {number} of {len(specs)}"))
            for number, spec in enumerate(specs, start=1)
        ]
    if unmeasured(bench.store, manifests):
        with progress_bar("timing the levels side by side") as update:
            measure_side_by_side(bench, manifests, update)
    return manifests


def _tell(tell: Callable[[str], None], level: str, step: str) -> None:
    tell(f"{level}: {step}")
