"""Cells -> means over the seeds, spreads, overlaps and kept shares, as plain values."""

import statistics
from collections.abc import Sequence
from itertools import combinations, combinations_with_replacement
from typing import Any

from pruning.comparison.cells import Cell
from pruning.comparison.kept import Sublayer, jaccard, kept_share, of_layer
from pruning.comparison.run import Outcome
from pruning.cost import Shape
from pruning.spec import Pattern, Structures


def report_of(outcome: Outcome, shape: Shape) -> dict[str, Any]:
    """Return a comparison as plain values.

    ``rows`` has a row for each level, scorer and recovery, at each level the best first. ``value`` is the mean over the
    seeds, ``spread`` their sample standard deviation (None for one seed), ``interval`` the mean of their 95 % intervals
    over the evaluation rows, ``lost`` what ``value`` lies under dense. ``kept`` has each sublayer's share of weights
    kept, layer by layer, and ``heads`` and ``neurons`` the widths, means over the seeds; widths are None unless the
    pattern is structured, and ``heads`` where units inside them go too. ``score_seconds`` is None where nothing was
    scored in this run, and so is ``score_bytes``, the most memory that it took with any seed.

    ``overlap`` has a member for each level: the Jaccard index of what any two scorers keep, in all and by layer, means
    over the seeds; ``between_seeds``, that of one scorer's masks with each other (None for one seed); and
    ``by_chance``, what two independent masks of that sparsity would share if each part kept its even share.
    """
    comparison = outcome.comparison
    rows = [
        _row(outcome, [cell for cell in outcome.cells if cell.spec == spec], shape)
        for scorer in comparison.scorers
        for spec in comparison.specs_of(scorer)
    ]
    return {
        "metric": outcome.dense.metric,
        "pattern": comparison.pattern.value,
        "structures": comparison.structures.value,
        "scope": None if comparison.scope is None else comparison.scope.value,
        "training": None if comparison.recipe is None else comparison.recipe.as_dict(),
        "scorers": list(comparison.scorers),
        "levels": list(comparison.levels),
        "seeds": comparison.seeds,
        "calibration_rows": outcome.calibration_rows,
        "evaluation_rows": outcome.dense.rows,
        "dense": {"value": outcome.dense.value, "interval": [outcome.dense.low, outcome.dense.high]},
        "rows": sorted(rows, key=lambda row: (row["sparsity"], -row["value"])),
        "overlap": [_overlap(outcome, level, shape.num_layers) for level in comparison.levels],
        "calibration_seconds": _mean_or_none(outcome.spent.calibration_seconds),
        "cells_computed": outcome.computed,
        "cells_stored": len(outcome.cells) - outcome.computed,
    }


def _row(outcome: Outcome, cells: Sequence[Cell], shape: Shape) -> dict[str, Any]:
    spec, worths = cells[0].spec, [cell.worth for cell in cells]
    values = [worth.value for worth in worths]
    kept = {
        sublayer.value: [
            statistics.fmean(kept_share(cell.kept, layer, sublayer) for cell in cells)
            for layer in range(shape.num_layers)
        ]
        for sublayer in Sublayer
    }
    widths = outcome.comparison.pattern is Pattern.STRUCTURED
    whole_heads = widths and outcome.comparison.structures is not Structures.UNITS
    return {
        "scorer": spec.scorer,
        "recover": spec.as_dict()["recover"],
        "sparsity": spec.sparsity,
        "achieved_sparsity": statistics.fmean(cell.achieved_sparsity for cell in cells),
        "macs": statistics.fmean(cell.macs for cell in cells),
        "value": statistics.fmean(values),
        "values": values,
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "interval": [
            statistics.fmean(worth.low for worth in worths),
            statistics.fmean(worth.high for worth in worths),
        ],
        "lost": outcome.dense.value - statistics.fmean(values),
        "agreement": statistics.fmean(worth.agreement for worth in worths),
        "score_seconds": _mean_or_none(outcome.spent.scoring_seconds.get(spec.scorer, [])),
        "score_bytes": max(outcome.spent.scoring_bytes.get(spec.scorer, []), default=None),
        "kept": kept,
        "heads": [share * shape.num_heads for share in kept[Sublayer.ATTENTION]] if whole_heads else None,
        "neurons": [share * shape.ffn for share in kept[Sublayer.FFN]] if widths else None,
    }


def _overlap(outcome: Outcome, level: float, num_layers: int) -> dict[str, Any]:
    scorers, seeds = outcome.comparison.scorers, range(outcome.comparison.seeds)
    # The mask does not depend on the recovery: any cell of the scorer, seed and level has it.
    kept = {(cell.spec.scorer, cell.seed): cell.kept for cell in outcome.cells if cell.spec.sparsity == level}
    achieved = [cell.achieved_sparsity for cell in outcome.cells if cell.spec.sparsity == level]
    share = 1.0 - statistics.fmean(achieved)

    def matrix(layer: int | None) -> list[list[float]]:
        parts = {key: value if layer is None else of_layer(value, layer) for key, value in kept.items()}
        means: dict[tuple[str, str], float] = {}
        for mine, other in combinations_with_replacement(scorers, 2):
            shared = statistics.fmean(jaccard(parts[mine, seed], parts[other, seed]) for seed in seeds)
            means[mine, other] = means[other, mine] = shared
        return [[means[mine, other] for other in scorers] for mine in scorers]

    return {
        "sparsity": level,
        "overall": matrix(None),
        "layers": [matrix(layer) for layer in range(num_layers)],
        "between_seeds": [
            _mean_or_none([jaccard(kept[scorer, one], kept[scorer, two]) for one, two in combinations(seeds, 2)])
            for scorer in scorers
        ],
        "by_chance": share / (2.0 - share),
    }


def _mean_or_none(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
