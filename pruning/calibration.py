"""What one pass over the calibration rows leaves behind, and the key that says of what.

Letters: M micro-batches, L layers, N heads, F FFN neurons, W width of a site (N*H or F).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from pruning.files import digest_of
from pruning.slim.bert import Site

CAPTURE_VERSION = 3
"""Raised whenever this pass, or the one for streamed scorers (``pruning.weight_pass``), changes what it shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationKey:
    """Everything that the collected numbers depend on. Caches of another key are refused."""

    weights: str
    tokenizer: str
    architecture: str
    rows: str
    """Digest of token ids, labels and their order."""
    num_rows: int
    max_length: int
    loss: str
    micro_batch: int
    """Rows whose mask gradients are summed before they are stored."""
    batch: int
    dtype: str
    seed: int
    version: int = CAPTURE_VERSION

    @property
    def digest(self) -> str:
        """16 hex digits."""
        return digest_of(asdict(self))[:16]

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Return ``field: theirs, not ours`` for every field that differs."""
        mine = asdict(self)
        return [f"{name}: {other.get(name)!r}, not {mine[name]!r}" for name in mine if other.get(name) != mine[name]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Mask gradients, Gram matrices, sensitivities and, read only when asked for, weight gradients. On the CPU."""

    key: CalibrationKey
    head_gradients_MLN: Tensor
    """Gradient of the summed loss of each micro-batch with respect to a mask of ones on each head."""
    neuron_gradients_MLF: Tensor
    """The same for each FFN neuron."""
    grams: Mapping[tuple[int, Site], Tensor]
    """``X^T D X`` [W, W] over all tokens that the layer computes, X the input of the output projection, D the tokens'
    weights: 1 on average, and in inverse proportion to the variance that the norm after the sublayer divides by."""
    sensitivity: Mapping[tuple[int, Site], Tensor]
    """Mean squared norm of the loss gradient at the sublayer's output, over the tokens that the layer computes."""
    tokens_L: Tensor
    """Tokens that each layer computed."""
    load_weight_gradients: Callable[[], Mapping[str, Tensor]]
    """Reads ``mean.<tensor>`` and ``square.<tensor>``: mean gradient of a row, mean square of a batch's."""
    load_sums: Callable[[], Mapping[str, Tensor]] = dict
    """Reads what the scorer's own pass left behind, or makes it now; empty for a scorer without one."""

    def weight_gradient_means(self) -> dict[str, Tensor]:
        """Return the mean gradient of every prunable weight, by tensor name."""
        return _under("mean.", self.load_weight_gradients())

    def weight_gradient_squares(self) -> dict[str, Tensor]:
        """Return the mean squared gradient of every prunable weight, by tensor name."""
        return _under("square.", self.load_weight_gradients())


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
