"""Time every scorer on a model: its pass over the rows, its scores, its cost curves; and the memory that took.

python scripts/measure_scorers.py embedded/model --train embedded/rows/calibration.jsonl
    --eval embedded/rows/evaluation.jsonl --store FRESH [--only wanda platon]

Each scorer runs in a process of its own, one after the other, on a store that is calibrated already. Seconds are the
processor's, of all cores together, so that who else computes hardly matters. Peak memory is what the process held at
most above what it held once model and calibration were loaded. Linux alone.
"""

import multiprocessing
import re
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from workbench_arguments import workbench_parser

from pruning.scores import SCORERS, scorer_named
from pruning.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Reading:
    """What one scorer took."""

    weights_s: float
    """To the scores of all single weights, its own pass included."""
    structures_s: float
    """Then to the scores of heads and neurons."""
    curves_s: float
    """Then to the cost curves that structured cuts read."""
    again_s: float
    """To the scores of all single weights once more, from the cache."""
    peak_mib: float


def main() -> None:
    """Print a Markdown table, one row per scorer."""
    parser = workbench_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=sorted(SCORERS), default=list(SCORERS), help="these scorers")
    options = parser.parse_args()
    places = (options.model, options.train, options.eval, options.store)
    started = time.process_time()
    made = Workbench.open(*places).calibrate()
    print(f"calibration: {time.process_time() - started:.1f} s" if made else "calibration: from the store", flush=True)
    print("| scorer | weights, s | heads and neurons, s | curves, s | weights again, s | peak memory, MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in options.only:
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            reading = alone.apply(measure, (places, name))
        print(
            f"| {name} | {reading.weights_s:.1f} | {reading.structures_s:.2f} | {reading.curves_s:.1f} | "
            f"{reading.again_s:.2f} | {reading.peak_mib:.0f} |",
            flush=True,
        )


def measure(places: tuple[Path, Path, Path, Path], name: str) -> Reading:
    """Return what one scorer takes in this process."""
    scorer = scorer_named(name)
    bench = Workbench.open(*places)
    bench.calibration  # noqa: B018, a cached property: reading it loads the file
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _mib("VmRSS")
    moments = [time.process_time()]
    for step in (bench.weight_scores, bench.structure_scores, bench.curves, bench.weight_scores):
        step(scorer)
        moments.append(time.process_time())
    weights_s, structures_s, curves_s, again_s = (end - start for start, end in pairwise(moments))
    return Reading(weights_s, structures_s, curves_s, again_s, _mib("VmHWM") - before)


def _mib(what: str) -> float:
    """Return the memory that this process holds (``VmRSS``), or the most since the peak began anew (``VmHWM``)."""
    found = re.search(rf"^{what}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None  # every Linux has both
    return int(found[1]) / 1024


if __name__ == "__main__":
    main()
