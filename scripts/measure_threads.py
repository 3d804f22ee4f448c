"""Measure a single text with and without idle threads that computed on several cores before.

python scripts/measure_threads.py [MODEL]

Each reading is a process of its own, for a team of threads stays as long as its process: the engine's thread beside a
main thread that computes on one core, and beside one that computed on all of them.
"""

import argparse
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from pruning.encoder import load_base_model
from pruning.slim.convert import build_slim, dense_mask, slim_layers
from pruning.tasks.labels import encode_rows, read_rows
from pruning.timing import median_latency
from pruning.tokenization import TextTokenizer

EMBEDDED = Path(__file__).resolve().parent.parent / "embedded"
ROWS = EMBEDDED / "rows" / "evaluation.jsonl"
READINGS = 5
REPEATS = 200


def median_ms(model: Path, threads: int, main_threads: int) -> float:
    """Return the median milliseconds of one text in a thread on ``threads`` cores; the main one had its own number."""
    torch.set_num_threads(main_threads)
    base = load_base_model(model)
    rows = encode_rows(read_rows(ROWS, base.labels), TextTokenizer.load(model), base.max_length)
    slim = build_slim(base, slim_layers(base, dense_mask(base.shape)))
    torch.randn(512, 512) @ torch.randn(512, 512)  # the main thread's team, if it has one
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,)) as executor:
        return executor.submit(median_latency, slim, rows.sequences, repeats=REPEATS).result()


def main() -> None:
    """Print both medians of every reading."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=EMBEDDED / "model")
    parser.add_argument("--main-threads", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    threads = torch.get_num_threads()
    if args.main_threads is not None:
        print(median_ms(args.model, threads, args.main_threads))
        return
    readings: dict[int, list[float]] = {1: [], threads: []}
    for _ in range(READINGS):
        for main_threads, seen in readings.items():
            command = [sys.executable, __file__, str(args.model), "--main-threads", str(main_threads)]
            seen.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(f"{threads} cores, torch {torch.__version__}, median of one text in {READINGS} processes each")
    for main_threads, seen in readings.items():
        print(f"main thread on {main_threads}: {statistics.median(seen):.2f} ms ({min(seen):.2f} to {max(seen):.2f})")


if __name__ == "__main__":
    main()
