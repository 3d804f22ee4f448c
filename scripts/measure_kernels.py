"""Compare what a CPU's layers can be computed with: plain and laid-out weights, fused and explicit attention.

python scripts/measure_kernels.py [--threads N]

All alternatives of a row are timed in turn in one process; the best of several rounds counts for each.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pruning.slim.attention import attend
from pruning.slim.linear import Linear

HIDDEN, FFN, HEADS = 384, 1536, 12
ROWS = (1, 25, 250, 800)
LENGTHS = (10, 25, 64, 128, 256, 512)
TOKENS = 800
"""Tokens of a batch in the rows on attention."""
ROUNDS, REPEATS = 6, 20
PRECISIONS = (torch.float32, torch.bfloat16)


def best_seconds(ways: Sequence[Callable[[], Tensor]]) -> list[float]:
    """Return the seconds of one call of each way: the mean of a round, the best of all rounds."""
    best = [float("inf")] * len(ways)
    for round_number in range(ROUNDS + 1):  # the first one warms up
        for index, way in enumerate(ways):
            started = time.perf_counter()
            for _ in range(REPEATS):
                way()
            if round_number > 0:
                best[index] = min(best[index], (time.perf_counter() - started) / REPEATS)
    return best


def measure_linear(rows: int, dtype: torch.dtype) -> list[float]:
    """Return GFLOP/s of (plain, laid-out) weights of the first FFN matrix."""
    layer = Linear(HIDDEN, FFN).requires_grad_(False).to(dtype)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    inputs = torch.randn(rows, HIDDEN).to(dtype)
    ways = (lambda: functional.linear(inputs, layer.weight, layer.bias), lambda: layer(inputs))
    return [2e-9 * rows * HIDDEN * FFN / seconds for seconds in best_seconds(ways)]


def measure_attention(length: int, dtype: torch.dtype) -> list[float]:
    """Return microseconds of (fused, chosen) attention over one layer's batch."""
    shape = (max(1, TOKENS // length), length, HEADS, HIDDEN // HEADS)
    query, key, value = (torch.randn(shape).to(dtype) for _ in range(3))

    def fused() -> Tensor:
        heads = [part.transpose(1, 2) for part in (query, key, value)]
        context = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        return context.transpose(1, 2).reshape(-1, HIDDEN)

    def chosen() -> Tensor:
        return attend(query, key, value, None, shape[3] ** -0.5).reshape(-1, HIDDEN)

    return [1e6 * seconds for seconds in best_seconds((fused, chosen))]


@torch.inference_mode()
def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print(f"| precision | rows x {HIDDEN} x {FFN} | plain GFLOP/s | laid out GFLOP/s | ratio |")
    print("| --- | --- | --- | --- | --- |")
    for dtype in PRECISIONS:
        for rows in ROWS:
            plain, laid_out = measure_linear(rows, dtype)
            print(f"| {str(dtype)[6:]} | {rows} | {plain:.0f} | {laid_out:.0f} | {laid_out / plain:.2f} |")
    print("\n| precision | length | fused attention us | chosen us | ratio |\n| --- | --- | --- | --- | --- |")
    for dtype in PRECISIONS:
        for length in LENGTHS:
            fused, chosen = measure_attention(length, dtype)
            print(f"| {str(dtype)[6:]} | {length} | {fused:.0f} | {chosen:.0f} | {fused / chosen:.2f} |")


if __name__ == "__main__":
    main()
