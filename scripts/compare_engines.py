"""Measure torch and OpenVINO side by side: texts a second and one text, per precision and level, in one run.

    python scripts/compare_engines.py MODEL --train TRAIN --eval VALIDATION --store STORE

Texts come in batches of 32 in the order of the rows, so of mixed lengths, and sorted over all of them; single texts are
the first ones of the rows. Each engine answers every load in turn, round by round, in a thread of its own as in a
replica; medians over the rounds count, and of the ratio within a round, so that a busy machine slows both alike. With
``OMP_NUM_THREADS=1`` both compute on one core, and its processor time counts: what else runs hardly shows.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `sparsedial serve` has them, before torch is imported
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import openvino
import torch
from workbench_arguments import open_workbench

from pruning.pipeline import build_variant
from pruning.prediction import BATCH_SEQUENCES
from pruning.slim.packed import TokenSequence
from pruning.spec import PruneSpec
from pruning.workbench import Workbench
from service.compute_threads import compute_alone, compute_on
from service.engine import Engine
from service.openvino_engine import HINTS, OpenVinoEngine
from service.torch_engine import SharedBase, TorchEngine

LEVELS = (0.0, 0.5, 0.7)
TEXTS = 320
SINGLES = 48
ROUNDS = 5
Load = Sequence[Sequence[TokenSequence]]
"""Batches that are answered one after the other."""
Clock = Callable[[], float]


def loads_of(sequences: Sequence[TokenSequence]) -> dict[str, Load]:
    """Return the loads by their names."""
    ordered = sorted(sequences, key=lambda sequence: len(sequence.ids))
    starts = range(0, len(sequences), BATCH_SEQUENCES)
    return {
        "mixed": [sequences[at : at + BATCH_SEQUENCES] for at in starts],
        "sorted": [ordered[at : at + BATCH_SEQUENCES] for at in starts],
        "single": [[one] for one in sequences[:SINGLES]],
    }


def seconds_of(engine: Engine, load: Load, clock: Clock) -> float:
    """Return the seconds of one pass over a load."""
    started = clock()
    for batch in load:
        engine.predict(batch)
    return clock() - started


def rounds_of(engines: Sequence[Engine], load: Load, clock: Clock) -> list[list[float]]:
    """Return the seconds of every round, those of all engines in turn; the first one has warmed up and is left out."""
    return [[seconds_of(engine, load, clock) for engine in engines] for _ in range(ROUNDS + 1)][1:]


def row_of(engines: Sequence[Engine], loads: dict[str, Load], clock: Clock) -> list[str]:
    """Return the cells of one level: of each load both engines, and how many times as fast as torch OpenVINO is."""
    cells = []
    for name, load in loads.items():
        rounds = rounds_of(engines, load, clock)
        count = sum(map(len, load))
        for seconds in map(statistics.median, zip(*rounds, strict=True)):
            cells.append(f"{1000 * seconds / count:.2f}" if name == "single" else f"{count / seconds:.0f}")
        cells.append(f"{statistics.median(ours / theirs for ours, theirs in rounds):.2f}")
    return cells


def engines_of(bench: Workbench, spec: PruneSpec, threads: int) -> tuple[TorchEngine, OpenVinoEngine]:
    """Return both engines of one level, warmed up."""
    variant_id = build_variant(bench, spec).variant_id
    with_torch = TorchEngine.load(SharedBase(bench.base, torch.device("cpu")), bench.store, variant_id)
    with_openvino = OpenVinoEngine.load(bench.base, bench.store, variant_id, threads=threads)
    return with_torch, with_openvino


def main() -> None:
    """Print a Markdown table."""
    threads = torch.get_num_threads()
    compute_alone()  # a team of this thread, idle beside that of the engine's, would slow it down
    clock = time.thread_time if threads == 1 else time.perf_counter
    bench = open_workbench(__doc__)
    loads = loads_of(bench.evaluation.sequences[:TEXTS])
    print(f"{threads} threads, torch {torch.__version__}, OpenVINO {openvino.__version__}, {TEXTS} texts")
    print("| precision | sparsity |", end="")
    for unit in ("mixed, texts/s", "sorted, texts/s", "one text, ms"):
        print(f" torch: {unit} | OpenVINO: {unit} | times torch |", end="")
    print("\n" + "| --- " * 11 + "|")
    engines = {
        (precision, level): engines_of(bench, PruneSpec(sparsity=level, precision=precision), threads)
        for precision in HINTS
        for level in LEVELS
    }
    with ThreadPoolExecutor(1, initializer=compute_on, initargs=(threads,)) as thread:
        for (precision, level), pair in engines.items():
            cells = thread.submit(row_of, pair, loads, clock).result()
            print(f"| {precision} | {level:g} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
