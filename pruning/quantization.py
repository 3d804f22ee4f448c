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
from pruning.prediction import predict_logits
from pruning.slim.convert import build_slim
from pruning.slim.linear import Linear
from pruning.slim.packed import TokenSequence
from pruning.slim.quantized import TOP, WEIGHT_TOP, require_integers

QUANTIZATION_VERSION = 1
RANGE_ROWS = 256
"""Calibration rows that ranges are read from."""
ALPHA = 0.5
"""Share of the differences between input columns that moves to the weights."""
SMALLEST = 1e-8
MATRICES = ("qkv", "attention_output", "ffn_in", "ffn_out")


@dataclass(slots=True)
class Range:
    """Smallest and largest input of each column, zero included."""

    low_K: Tensor
    high_K: Tensor

    def include(self, inputs_TK: Tensor) -> None:
        """Widen by these inputs."""
        self.low_K = torch.minimum(self.low_K, inputs_TK.amin(0))
        self.high_K = torch.maximum(self.high_K, inputs_TK.amax(0))


def quantize(base: BaseModel, layers: Mapping[str, Tensor], sequences: Sequence[TokenSequence]) -> dict[str, Tensor]:
    """Return float32 ``layers`` with the four matrices of each as ``QuantizedLinear`` holds them.

    Args:
        base: the model that they were cut from.
        layers: from ``slim_layers``.
        sequences: calibration rows; the first ``RANGE_ROWS`` are run through the cut.

    Raises:
        StoreError: this machine does not multiply integers.
    """
    require_integers()
    quantized = dict(layers)
    for name, seen in _input_ranges(base, layers, sequences[:RANGE_ROWS]).items():
        smooth = not name.endswith("ffn_out")
        parts = quantized_matrix(layers[f"{name}.weight"], seen, smooth=smooth)
        quantized |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    return quantized


def quantized_matrix(weight_NK: Tensor, seen: Range, *, smooth: bool) -> dict[str, Tensor]:
    """Return the tensors of a ``QuantizedLinear`` but its bias."""
    divisor_K = torch.ones_like(seen.high_K)
    if smooth and weight_NK.numel() > 0:
        inputs_K = torch.maximum(-seen.low_K, seen.high_K).clamp_min(SMALLEST)
        weights_K = weight_NK.abs().amax(0).clamp_min(SMALLEST)
        divisor_K = (inputs_K**ALPHA / weights_K ** (1 - ALPHA)).clamp_min(SMALLEST)
    low, high = (end / divisor_K for end in (seen.low_K, seen.high_K))
    span = high.amax() - low.amin() if low.numel() > 0 else torch.tensor(0.0)
    scale = (span / TOP).clamp_min(SMALLEST)
    zero = torch.round(-low.amin() / scale) if low.numel() > 0 else torch.tensor(0.0)
    smoothed_NK = weight_NK * divisor_K
    largest_N = smoothed_NK.abs().amax(1) if weight_NK.numel() > 0 else torch.zeros(len(weight_NK))
    weight_scale_N = (largest_N / WEIGHT_TOP).clamp_min(SMALLEST)
    return {
        "weight": torch.round(smoothed_NK / weight_scale_N[:, None]).to(torch.int8),
        "weight_scale": weight_scale_N,
        "input_factor": 1 / (scale * divisor_K),
        "input_scale": scale,
        "input_zero": zero,
    }


def _input_ranges(
    base: BaseModel, layers: Mapping[str, Tensor], sequences: Sequence[TokenSequence]
) -> dict[str, Range]:
    """Return the ranges of every matrix's inputs over ``sequences``; of one that is never reached, all zero."""
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
    predict_logits(model, sequences)
    return ranges
