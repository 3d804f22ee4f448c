"""What ``prepare``, ``prune`` and ``frontier`` do with a model and its store. Torch comes with this file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pruning.cascade_rows import cascade_rows
from pruning.encoder import load_base_model
from pruning.errors import StoreError
from pruning.frontier import frontier_rows
from pruning.material import Material
from pruning.pipeline import build_variant
from pruning.plot import plot_frontier
from pruning.spec import Precision, PruneSpec, Scope
from pruning.speed_target import require_speedup, sparsity_for
from pruning.variants import VariantStore
from pruning.workbench import Workbench
from service.ladder import ladder_specs, prepare_ladder
from service.pictures import drawing, require_png
from service.precisions import Choice, choose_precision
from service.sources import default_store, model_dir, rows_of
from service.terminal import progress_bar, say, spinner

Rows = list[dict[str, Any]]
"""Rows of the frontier, one per level."""


@dataclass(frozen=True, slots=True)
class Frontier:
    """What a store holds of a model: levels, and the cascades among them."""

    levels: Rows
    cascades: Rows

    @classmethod
    def of(cls, store: VariantStore, levels: Rows) -> Self:
        """Return these levels with their cascades."""
        return cls(levels, cascade_rows(store, levels))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The model, rows and store that a command was given."""

    model: str
    train: Path | None
    evaluation: Path | None
    store: Path | None

    def open(self) -> Workbench:
        """Return the workbench.

        Raises:
            ModelError: the model cannot be loaded.
            DataError: the rows are missing or cannot be used.
        """
        return Workbench.drawn(*self.load())

    def load(self) -> tuple[Material, Path]:
        """Return the model with its rows, and the folder of its store; raises what ``open`` raises."""
        folder = model_dir(self.model)
        material = Material.load(folder, *rows_of(folder, self.train, self.evaluation))
        return material, self.store or default_store(material.base)


def prepare_model(
    place: Place,
    levels: Sequence[float],
    scorer: str,
    pattern: str,
    precisions: Sequence[Precision] | None,
    recover: str | None,
    rounds: int,
) -> tuple[Path, Frontier, Choice | None]:
    """Make whatever is missing of a ladder in each precision; return (store, frontier, how the precision was chosen).

    Without ``precisions`` one is chosen by measurement.

    Raises:
        PruningError: an unknown scorer, pattern, precision or recovery, wrong rounds, or a model, rows or store that
            cannot be used.
    """
    ladder_specs(levels, scorer, pattern, recover, rounds=rounds)  # refused before the model is read
    bench = place.open()
    choice = choose_precision(bench) if precisions is None else None
    several = [choice.precision] if choice else precisions or ()
    specs = [spec for one in several for spec in ladder_specs(levels, scorer, pattern, recover, one, rounds)]
    manifests = prepare_ladder(bench, specs)
    rows = rows_of_variants(bench, [manifest.variant_id for manifest in manifests])
    return bench.root, Frontier.of(bench.store, rows), choice


def prune_model(place: Place, spec: PruneSpec, speedup: float | None) -> tuple[Path, Rows]:
    """Cut the model from its cached scores; return (the variant's folder, its row).

    Cuts by latency measure this machine if no table is there, and say so if it is of another one. With a ``speedup``
    the sparsity is the least that has it.

    Raises:
        PruningError: the model was not prepared, an unknown scorer, no cut is so fast, or files that cannot be used.
    """
    if speedup is not None:
        require_speedup(spec, speedup)  # refused before the model is read
    bench = place.open()
    if spec.scope is Scope.LATENCY:
        bench.calibration  # noqa: B018, a cached property: a model without one is refused before minutes are measured
        with progress_bar(f"measuring what sublayers of {bench.base.name} take here") as progress:
            bench.measure_latencies(progress)
        if elsewhere := bench.latency_file.measured_elsewhere():
            say(elsewhere, style="yellow")
    if speedup is not None:
        spec = replace(spec, sparsity=sparsity_for(bench, spec, speedup))
    with spinner(f"cutting {bench.base.name} to {spec.sparsity:g}") as tell:
        manifest = build_variant(bench, spec, tell)
    return bench.store.folder / manifest.variant_id, rows_of_variants(bench, [manifest.variant_id])


def stored_frontier(model: str, store: Path | None, plot: Path | None) -> tuple[Path, Frontier]:
    """Return (store, the model's variants and cascades in it), drawn into ``plot`` where one is named.

    Raises:
        ModelError: no such model.
        StoreError: no variant of it is in the store.
        SpecError: ``plot`` is not a PNG file that can be written.
    """
    base = load_base_model(model_dir(model))
    root = store or default_store(base)
    variants = VariantStore(root)
    rows = frontier_rows(variants, base.digest)
    if not rows:
        raise StoreError(f"no variants of {model} in {root}; run 'sparsedial prepare' first")
    frontier = Frontier.of(variants, rows)
    if plot is not None:
        _draw(frontier, plot, f"{model}: the frontier on this machine")
    return root, frontier


def _draw(frontier: Frontier, plot: Path, title: str) -> None:
    require_png(plot)
    with drawing(plot):
        plot_frontier(frontier.levels, plot, title, frontier.cascades)


def rows_of_variants(bench: Workbench, variant_ids: Sequence[str]) -> Rows:
    """Return the frontier rows of some variants."""
    return frontier_rows(bench.store, bench.base.digest, only=variant_ids)
