"""Time every scorer on a model: its pass over the rows, its scores, its cost curves, a cut; and the memory that took.

python scripts/measure_scorers.py embedded/model --train embedded/rows/calibration.jsonl
    --eval embedded/rows/evaluation.jsonl --store FRESH [--only wanda platon]

Each scorer runs in a process of its own, one after the other, on a store that is calibrated first. The last two columns
are a structured cut to 50 % without recovery: from the cache, and as it would be without one, everything before it
computed for this one level. Seconds are the processor's, of all cores together, so that who else computes hardly
matters. Peak memory is what the process held at most above what it held once model and calibration were loaded. Linux
alone.
"""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workbench_arguments import workbench_parser

from pruning.memory import MIB
from pruning.peak_memory import peak_memory
from pruning.pipeline import cut
from pruning.scores import SCORERS, scorer_named
from pruning.spec import STRUCTURES_ALONE, PruneSpec, Recover
from pruning.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Reading:
    """What one scorer took."""

    weights_s: float | None
    """To the scores of all single weights, its own pass included; None of a scorer that has none."""
    structures_s: float
    """Then to the scores of heads and neurons."""
    curves_s: float
    """Then to the cost curves that structured cuts read."""
    again_s: float | None
    """To the scores of all single weights once more, from the cache."""
    cut_s: float
    """To the layers of a cut, from the cache."""
    peak_mib: float

    @property
    def scoring_s(self) -> float:
        """All that a first cut waits for once the model is calibrated; curves score heads and neurons themselves."""
        return (self.weights_s or 0.0) + self.curves_s


def main() -> None:
    """Print a Markdown table, one row per scorer."""
    parser = workbench_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=sorted(SCORERS), default=list(SCORERS), help="these scorers")
    options = parser.parse_args()
    places = (options.model, options.train, options.eval, options.store)
    bench = Workbench.open(*places)
    started = time.process_time()
    if not bench.calibrate():
        parser.error(f"{options.store} has this calibration already, and nothing could be timed; give a fresh --store")
    calibration_s = time.process_time() - started
    print(f"calibration: {calibration_s:.1f} s", flush=True)
    print(
        "| scorer | weights, s | heads and neurons, s | curves, s | weights again, s | peak memory, MiB "
        "| cut, s | cut without a cache, s |"
    )
    print("| --- |" + " --- |" * 7)
    for name in options.only:
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            reading = alone.apply(measure, (places, name))
        print(
            f"| {name} | {_shown(reading.weights_s, 1)} | {reading.structures_s:.2f} | {reading.curves_s:.1f} | "
            f"{_shown(reading.again_s, 2)} | {reading.peak_mib:.0f} | {reading.cut_s:.2f} | "
            f"{calibration_s + reading.scoring_s + reading.cut_s:.1f} |",
            flush=True,
        )


def measure(places: tuple[Path, Path, Path, Path], name: str) -> Reading:
    """Return what one scorer takes in this process."""
    scorer = scorer_named(name)
    bench = Workbench.open(*places)
    bench.calibration  # noqa: B018, a cached property: reading it loads the file
    ranks_weights = name not in STRUCTURES_ALONE
    with peak_memory() as peak:
        weights_s = _seconds(lambda: bench.weight_scores(scorer)) if ranks_weights else None
        structures_s = _seconds(lambda: bench.structure_scores(scorer))
        curves_s = _seconds(lambda: bench.curves(scorer))
        again_s = _seconds(lambda: bench.weight_scores(scorer)) if ranks_weights else None
    anew = Workbench.open(*places)  # what the last one keeps in memory is read from disk here
    anew.calibration  # noqa: B018
    half = PruneSpec(sparsity=0.5, scorer=name, recover=Recover.NONE)
    return Reading(weights_s, structures_s, curves_s, again_s, _seconds(lambda: cut(anew, half)), peak[0] / MIB)


def _seconds(step: Callable[[], object]) -> float:
    """Return the processor's seconds that a step takes."""
    started = time.process_time()
    step()
    return time.process_time() - started


def _shown(seconds: float | None, digits: int) -> str:
    return "--" if seconds is None else f"{seconds:.{digits}f}"


if __name__ == "__main__":
    main()
