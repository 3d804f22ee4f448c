"""The best rate at which this machine multiplies matrices, as the engine computes them: what a forward pass may reach.

The ceiling of a precision is the best rate of one matrix alone, of the model's own sizes and of larger ones. Nothing
but the product is timed: a forward pass, which also attends, normalises and looks up embeddings, stays below it.
"""

import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pruning.cost import Shape
from pruning.quantization import Range, quantized_matrix
from pruning.slim.convert import DTYPES
from pruning.slim.linear import Linear
from pruning.slim.quantized import QuantizedLinear
from pruning.spec import Precision

ROWS = 800
"""Tokens of one product: about those of a batch of 32 texts."""
BLOCKS = 6
"""Times that the mean of some products is taken; the best one counts."""
BLOCK_S = 0.05
"""Seconds of one block, at least one product."""
LARGE = ((768, 3072), (1024, 1024))
"""Inputs and outputs of matrices that are tried whatever the model."""


def matrix_sizes(shape: Shape) -> tuple[tuple[int, int], ...]:
    """Return (inputs, outputs) of the matrices that the ceiling of a model of this shape is looked for with."""
    own = ((shape.hidden, shape.ffn), (shape.ffn, shape.hidden), (shape.hidden, 3 * shape.hidden))
    return tuple(dict.fromkeys((*own, *LARGE)))


@torch.inference_mode()
def ceiling(precision: Precision, sizes: Iterable[tuple[int, int]]) -> float:
    """Return the best multiply-accumulates a second of one matrix of these sizes, with the threads of this process.

    Raises:
        PrecisionError: this machine does not compute that precision.
    """
    return max(
        ROWS * inputs * outputs / _best_seconds(product(precision, inputs, outputs)) for inputs, outputs in sizes
    )


def product(precision: Precision, inputs: int, outputs: int) -> Callable[[], Tensor]:
    """Return one product of ``ROWS`` rows, [ROWS, outputs], as the engine computes it."""
    weight, bias, rows = torch.randn(outputs, inputs), torch.randn(outputs), torch.randn(ROWS, inputs)
    if precision is Precision.INT8:
        seen = Range(rows.amin(0), rows.amax(0))
        quantized = QuantizedLinear(inputs, outputs)
        quantized.load_state_dict(quantized_matrix(weight, seen, smooth=False) | {"bias": bias}, assign=True)
        steps = torch.randint(0, 255, (ROWS, inputs), dtype=torch.uint8)
        return lambda: quantized(steps)
    layer = Linear(inputs, outputs)
    layer.load_state_dict({"weight": weight, "bias": bias})
    layer.requires_grad_(False).to(DTYPES[precision])
    values = rows.to(DTYPES[precision])
    return lambda: layer(values)


def _best_seconds(work: Callable[[], object]) -> float:
    """Return the seconds of one call: the best mean of ``BLOCKS`` blocks, the first call apart, which lays out."""
    work()
    started = time.perf_counter()
    work()
    repeats = max(1, int(BLOCK_S / (time.perf_counter() - started)))
    best = float("inf")
    for _ in range(BLOCKS):
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        best = min(best, (time.perf_counter() - started) / repeats)
    return best
