"""The ladder: the levels that are built ahead and kept loaded."""

from collections.abc import Callable, Sequence
from functools import partial

from pruning.pipeline import build_variant
from pruning.scores import scorer_named
from pruning.spec import PruneSpec
from pruning.variants import Manifest
from pruning.workbench import Workbench
from service.terminal import spinner


def ladder_specs(levels: Sequence[float], scorer: str, pattern: str, recover: str | None = None) -> list[PruneSpec]:
    """Return one spec per level, dense first.

    Raises:
        SpecError: an unknown scorer, pattern or recovery, or a level outside [0, 1); before any model is scored.
    """
    return [
        PruneSpec(sparsity=level, scorer=scorer_named(scorer).name, pattern=pattern, recover=recover)  # type: ignore[arg-type]
        for level in sorted({0.0, *levels})
    ]


def prepare_ladder(bench: Workbench, specs: Sequence[PruneSpec]) -> list[Manifest]:
    """Return the variants of ``specs``, building those that the store lacks, with a word on each step."""
    with spinner("building the ladder") as tell:
        return [
            build_variant(bench, spec, partial(_tell, tell, f"level {spec.sparsity:g}, {number} of {len(specs)}"))
            for number, spec in enumerate(specs, start=1)
        ]


def _tell(tell: Callable[[str], None], level: str, step: str) -> None:
    tell(f"{level}: {step}")
