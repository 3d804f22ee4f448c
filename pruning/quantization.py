"""From the float32 layers of a cut to 8-bit integers, on the ranges that calibration rows give.

Static and affine: a tensor's range over the rows becomes 0 to 255 (Jacob et al., 2018, equation 1). Where inputs vary
between columns, part of that is moved to the weights first (SmoothQuant, Xiao et al., 2023, equation 4, with
``ALPHA``); not for the second FFN matrix, whose inputs leave the first one as integers of one scale.

Letters: N outputs and K inputs of a matrix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.encoder import BaseModel
from pruning.errors import PrecisionError
from pruning.prediction import Breath, no_breath, predict_logits
from pruning.slim.convert import build_slim
from pruning.slim.linear import Linear
from pruning.slim.packed import TokenSequence
from pruning.slim.quantized import INPUT_TOP, WEIGHT_TOP, require_integers

QUANTIZATION_VERSION = 1
RANGE_ROWS = 256
"""Calibration rows that ranges are read from."""
ALPHA = 0.5
"""Share of the differences between input columns that moves to the weights."""
SMALLEST = 1e-8
"""Smallest step: a matrix or a row of zeros has one too."""
MATRICES = ("qkv", "attention_output", "ffn_in", "ffn_out")
"""What is quantized of a layer."""
ENDS = ("input_low", "input_high")
"""Parts of a matrix, beside weight and bias, under which layers that were trained for integers keep its range."""


@dataclass(slots=True)
class Range:
    """Smallest and largest input of each column, zero included."""

    low_K: Tensor
    high_K: Tensor

    def include(self, inputs_TK: Tensor) -> None:
        """Widen by these inputs."""
        self.low_K = torch.minimum(self.low_K, inputs_TK.amin(0))
        self.high_K = torch.maximum(self.high_K, inputs_TK.amax(0))


def quantize(
    base: BaseModel, layers: Mapping[str, Tensor], sequences: Sequence[TokenSequence], breath: Breath = no_breath
) -> dict[str, Tensor]:
    """Return float32 ``layers`` with the four matrices of each as ``QuantizedLinear`` holds them.

    Args:
        base: the model that they were cut from.
        layers: from ``slim_layers``; with the ranges that they were trained with, or without.
        sequences: calibration rows; where there are no ranges, the first ``RANGE_ROWS`` are run through the cut.
        breath: called after every batch of them.

    Raises:
        PrecisionError: this machine does not multiply integers, or an input of a matrix is not finite.
    """
    require_integers()
    plain, ranges = without_ranges(layers)
    quantized = dict(plain)
    for name, seen in (ranges or input_ranges(base, plain, sequences, breath)).items():
        if not (torch.isfinite(seen.low_K).all() and torch.isfinite(seen.high_K).all()):
            raise PrecisionError(
                f"inputs of {name} are not finite on the calibration rows, and have no range as integers; "
                "use 'float32', or check the checkpoint"
            )
        parts = quantized_matrix(plain[f"{name}.weight"], seen, smooth=smoothed(name))
        quantized |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    return quantized


def quantized_matrix(weight_NK: Tensor, seen: Range, *, smooth: bool) -> dict[str, Tensor]:
    """Return the tensors of a ``QuantizedLinear`` but its bias.

    ``smooth`` divides each column's inputs by what its weights are multiplied with. A column that was always 0 says
    nothing of its size, and is left as it is.
    """
    divisor_K = torch.ones_like(seen.high_K)
    if smooth and len(weight_NK):
        inputs_K, weights_K = torch.maximum(-seen.low_K, seen.high_K), weight_NK.abs().amax(0)
        known_K = (inputs_K > 0) & (weights_K > 0)
        divisor_K[known_K] = inputs_K[known_K] ** ALPHA / weights_K[known_K] ** (1 - ALPHA)
    low, high = _ends(seen.low_K / divisor_K, seen.high_K / divisor_K)
    scale = ((high - low) / INPUT_TOP).clamp_min(SMALLEST)
    smoothed_NK = weight_NK * divisor_K
    largest_N = smoothed_NK.abs().amax(1) if len(divisor_K) else torch.zeros(len(weight_NK))
    weight_scale_N = (largest_N / WEIGHT_TOP).clamp_min(SMALLEST)
    return {
        "weight": torch.round(smoothed_NK / weight_scale_N[:, None]).to(torch.int8),
        "weight_scale": weight_scale_N,
        "input_factor": 1 / (scale * divisor_K),
        "input_scale": scale,
        "input_zero": torch.round(-low / scale),
    }


def _ends(low_K: Tensor, high_K: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ends of one range for all columns; of no column, zeros."""
    return (low_K.amin(), high_K.amax()) if len(low_K) else (torch.tensor(0.0), torch.tensor(0.0))


def smoothed(matrix: str) -> bool:
    """Tell whether differences between a matrix's inputs may move to its weights, by its name."""
    return not matrix.endswith("ffn_out")


def with_ranges(layers: Mapping[str, Tensor], ranges: Mapping[str, Range]) -> dict[str, Tensor]:
    """Return ``layers`` that keep the ranges of their matrices' inputs."""
    ends = {
        f"{name}.{end}": values
        for name, seen in ranges.items()
        for end, values in zip(ENDS, (seen.low_K, seen.high_K), strict=True)
    }
    return {**layers, **ends}


def without_ranges(layers: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Range]]:
    """Return (layers alone, the ranges that they keep: by name of the matrix, or none)."""
    low, high = ENDS
    names = [name.removesuffix(f".{low}") for name in layers if name.endswith(f".{low}")]
    ranges = {name: Range(layers[f"{name}.{low}"], layers[f"{name}.{high}"]) for name in names}
    return {name: tensor for name, tensor in layers.items() if not name.endswith(ENDS)}, ranges


def input_ranges(
    base: BaseModel, layers: Mapping[str, Tensor], sequences: Sequence[TokenSequence], breath: Breath = no_breath
) -> dict[str, Range]:
    """Return the ranges of every matrix's inputs over the first ``RANGE_ROWS``; of one that is never reached, zero."""
    model = build_slim(base, layers)
    ranges: dict[str, Range] = {}
    for index in range(len(model.layers)):
        for slot in MATRICES:
            name = f"layers.{index}.{slot}"
            matrix = model.get_submodule(name)
            assert isinstance(matrix, Linear)
            columns = matrix.weight.shape[1]
            seen = ranges[name] = Range(torch.zeros(columns), torch.zeros(columns))
            matrix.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.include(inputs[0]))
    predict_logits(model, sequences[:RANGE_ROWS], breath=breath)
    return ranges
