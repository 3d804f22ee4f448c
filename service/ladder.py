"""The ladder: the levels that are built ahead and kept loaded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from pruning.cascades import calibrate_cascades, missing_cascades
from pruning.frontier import frontier_rows, measure_side_by_side, unmeasured
from pruning.pareto import left_out
from pruning.pipeline import build_variant
from pruning.scores import choice_named
from pruning.spec import PruneSpec
from pruning.variants import Manifest, VariantStore
from pruning.workbench import Workbench
from service.settings import Settings
from service.terminal import progress_bar, spinner


@dataclass(frozen=True, slots=True)
class Ladder:
    """The variants prepared ahead and kept loaded."""

    variant_ids: tuple[str, ...]
    """Dense in the usual precision first."""
    initial: str
    """Committed where nothing ever was."""

    @classmethod
    def of(cls, manifests: Sequence[Manifest], store: VariantStore, settings: Settings) -> Self:
        """Return what to keep loaded of the variants of ``specs_of(settings)``, which ``manifests`` are.

        Every level in the usual precision, for it was asked for by name; of further precisions what is worth having.
        """
        rows = frontier_rows(store, only=[manifest.variant_id for manifest in manifests])
        dominated = {row["variant"] for row, _ in left_out(rows)}
        usual = settings.precision[0]
        return cls(
            tuple(m.variant_id for m in manifests if m.spec.precision is usual or m.variant_id not in dominated),
            next(m.variant_id for m in manifests if m.spec.sparsity == settings.sparsity),
        )


def specs_of(settings: Settings) -> list[PruneSpec]:
    """Return the ladder of a service: its levels in each of its precisions, the usual one first.

    Raises:
        SpecError: as ``ladder_specs``.
    """
    levels = (*settings.levels, settings.sparsity)
    return [
        spec
        for precision in settings.precision
        for spec in ladder_specs(
            levels, settings.scorer, settings.pattern, settings.recover, precision, settings.rounds
        )
    ]


def ladder_specs(
    levels: Sequence[float],
    scorer: str,
    pattern: str,
    recover: str | None = None,
    precision: str = "float32",
    rounds: int = 1,
) -> list[PruneSpec]:
    """Return one spec per level, dense first.

    Raises:
        SpecError: an unknown scorer, pattern, precision or recovery, wrong rounds, or a level outside [0, 1); no model
            is scored before.
    """
    return [
        PruneSpec(
            sparsity=level,
            scorer=choice_named(scorer),
            pattern=pattern,  # type: ignore[arg-type]
            recover=recover,  # type: ignore[arg-type]
            precision=precision,  # type: ignore[arg-type]
            rounds=rounds,
        )
        for level in sorted({0.0, *levels})
    ]


def prepare_ladder(bench: Workbench, specs: Sequence[PruneSpec], *, score: bool = True) -> list[Manifest]:
    """Return the variants of ``specs``. Whatever is missing is made now, with a word on each step.

    The model is scored if it was not, unless no ``score`` is wanted, levels are built that the store lacks, unless one
    run has timed all of them they are timed side by side, and their cascades are calibrated.

    Raises:
        PruningError: a spec that cannot be built, or a store that cannot be used.
    """
    if score:
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
    if missing_cascades(bench, manifests):
        with progress_bar("calibrating cascades") as update:
            calibrate_cascades(bench, manifests, update)
    return manifests


def _tell(tell: Callable[[str], None], level: str, step: str) -> None:
    tell(f"{level}: {step}")
