"""The story: for every draw of calibration rows, scorer and level a cut, judged on the evaluation rows.

Cuts are not stored as variants: what each is worth is a small document, and a run that was interrupted goes on where it
stopped. Calibrations, scores and cost curves are cached as for any other cut.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from pruning.capture import Progress
from pruning.comparison.cells import Cell, CellStore, Worth, cell_name
from pruning.comparison.kept import kept_by
from pruning.comparison.request import Comparison, draw_size
from pruning.comparison.training import Training
from pruning.comparison.work import Ledger, Watch, calibration_work, cut_work, scoring_work, unit_work, work_of
from pruning.cutting import Ranking, carried_out, mask_of, ranking_of
from pruning.evaluation import evaluate
from pruning.material import Material
from pruning.peak_memory import peak_memory
from pruning.prediction import judged_logits
from pruning.scores import Streamed, scorer_named
from pruning.slim.convert import build_slim
from pruning.spec import Pattern, PruneSpec, Recover, Structures
from pruning.workbench import Workbench


@dataclass(slots=True)
class Spent:
    """What was computed in this run took so much; what was cached is not among it."""

    calibration_seconds: list[float] = field(default_factory=list)
    """One pass each, which all scorers share."""
    scoring_seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By scorer: its own pass, its scores and its cost curves, for one draw of rows each."""
    scoring_bytes: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """By scorer, for one draw of rows each: what these took at most, above model and calibration; where no machine
    tells it, none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All cells of a comparison."""

    comparison: Comparison
    dense: Worth
    cells: tuple[Cell, ...]
    """Seed by seed, scorer by scorer, least sparse first."""
    computed: int
    """So many of them were computed in this run; the others were stored."""
    calibration_rows: int
    """Rows of each draw."""
    spent: Spent


def compare(
    material: Material, root: Path, comparison: Comparison, watch: Watch = lambda what, done, total: None
) -> Outcome:
    """Return what every cut of ``comparison`` is worth: from the store under ``root``, or computed and stored now.

    Raises:
        SpecError: a sparsity that leaves nothing, a pattern that does not fit the model, or a head that is not trained.
        DataError: too few training rows to draw from, or to train on.
        CacheError: a calibration or scores that are damaged.
        RecoveryError: a training cannot go on.
        StoreError: a stored cell is damaged, or one cannot be written.
    """
    store = CellStore(root)
    wanted = [spec for scorer in comparison.scorers for spec in comparison.specs_of(scorer)]
    cells: dict[tuple[int, PruneSpec], Cell] = {}
    missing: dict[int, list[PruneSpec]] = {}
    work = 0
    for seed in range(comparison.seeds):
        bench, training = _draw(material, root, comparison, seed)
        stored = {spec: cell for spec in wanted if (cell := store.find(cell_name(bench, spec, training))) is not None}
        cells |= {(seed, spec): cell for spec, cell in stored.items()}
        missing[seed] = [spec for spec in wanted if spec not in stored]
        work += work_of(bench, missing[seed], comparison.recipe)

    ledger, spent = Ledger(work, watch), Spent()
    for seed, specs in missing.items():
        # Opened anew: what one draw keeps in memory goes with it.
        bench, training = _draw(material, root, comparison, seed)
        for spec, cell in _computed(bench, training, specs, ledger, spent):
            store.put(cell_name(bench, spec, training), cell)
            cells[seed, spec] = cell

    reference = bench.reference()
    return Outcome(
        comparison=comparison,
        dense=Worth.of(evaluate(reference, reference, material.evaluation)),
        cells=tuple(cells[seed, spec] for seed in range(comparison.seeds) for spec in wanted),
        computed=sum(len(specs) for specs in missing.values()),
        calibration_rows=len(bench.train),
        spent=spent,
    )


def _draw(material: Material, root: Path, comparison: Comparison, seed: int) -> tuple[Workbench, Training | None]:
    """Return what one draw of rows is calibrated by, and how its cuts are distilled: on all training rows."""
    size = draw_size(len(material.train), comparison.rows)
    bench = Workbench.drawn(material, root, seed=seed, size=size)
    recipe = comparison.recipe_of(seed)
    return bench, None if recipe is None else Training(recipe, material.train)


def _computed(
    bench: Workbench, training: Training | None, specs: Sequence[PruneSpec], ledger: Ledger, spent: Spent
) -> Iterator[tuple[PruneSpec, Cell]]:
    """Yield the cells of one draw as they are computed; each scorer ranks once, and every level cuts by that."""
    if not specs:
        return
    with ledger.step(f"seed {bench.seed}, calibration", calibration_work(bench)) as progress, _clock() as took:
        made = bench.calibrate(progress)
    bench.calibration  # noqa: B018, a cached property: reading it is no scorer's work
    if made:
        spent.calibration_seconds.append(took[0])
    structures = specs[0].structures
    if structures is Structures.UNITS:
        with ledger.step(f"seed {bench.seed}, units", unit_work(bench, structures)) as progress:
            bench.unit_statistics(progress)
    for name, cuts in groupby(specs, key=lambda spec: spec.scorer):
        levels = list(cuts)
        cached = _is_cached(bench, levels[0])
        with (
            ledger.step(f"seed {bench.seed}, {name}: scores", scoring_work(bench, levels[0])) as progress,
            _clock() as took,
            peak_memory() as peak,
        ):
            ranking = ranking_of(bench, levels[0], progress)
        if not cached:
            spent.scoring_seconds[name].append(took[0])
            spent.scoring_bytes[name] += peak
        for spec in levels:
            work = cut_work(bench, spec, None if training is None else training.recipe)
            with ledger.step(f"seed {bench.seed}, {name} at {spec.sparsity:g}", work) as progress:
                cell = _judged(bench, training, ranking, spec, progress)
            yield spec, cell


def _judged(bench: Workbench, training: Training | None, ranking: Ranking, spec: PruneSpec, progress: Progress) -> Cell:
    mask = mask_of(bench, ranking, spec)
    layers, cost, achieved = carried_out(bench, mask, spec)
    if spec.recover is Recover.DISTILL:
        assert training is not None  # as ``Comparison`` sees to
        layers = training.layers_of(bench, spec, progress)
    logits, _ = judged_logits(build_slim(bench.base, layers), bench.evaluation.sequences)
    return Cell(
        spec=spec,
        seed=bench.seed,
        achieved_sparsity=achieved,
        macs=cost.macs,
        worth=Worth.of(evaluate(logits, bench.reference(), bench.evaluation)),
        kept=kept_by(mask, bench.base.shape),
    )


def _is_cached(bench: Workbench, spec: PruneSpec) -> bool:
    """Tell whether ranking only reads: of single weights, only what a pass of the scorer's own gave is ever stored."""
    scorer = scorer_named(spec.scorer)
    if spec.pattern is Pattern.STRUCTURED:
        return bench.has_curves(scorer, spec.structures)
    return isinstance(scorer, Streamed) and bench.has_sums(scorer)


@contextmanager
def _clock() -> Iterator[list[float]]:
    """Give a list that holds the seconds of the block once it ended."""
    started, took = time.perf_counter(), [0.0]
    yield took
    took[0] = time.perf_counter() - started
