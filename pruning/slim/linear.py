"""A linear layer whose frozen weights lie as the CPU's matrix kernels want them.

oneDNN multiplies by weights in a blocked layout of its own. Laying them out once, at the first use, is worth more than
any other choice of kernel on a CPU: ``python scripts/measure_kernels.py`` compares them on the machine at hand. The
two operators are those that ``torch.compile`` emits for the same purpose; where a build of torch lacks them, and on
other devices, the ordinary ones are used.
"""

import platform
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYOUT_ROWS = 512
"""Rows that the layout is chosen for; it serves any number."""

ACTIVATIONS = {"gelu": ("gelu", "none"), "gelu_new": ("gelu", "tanh"), "relu": ("relu", "")}
"""Hugging Face's name of an activation -> oneDNN's (name, algorithm); computed while a product is in the cache."""


ROW_STEPS = 8
"""Numbers of rows between one power of two and the next."""


def rounded_rows(rows: int) -> int:
    """Return the number of rows, at least ``rows``, that a batch is filled up to.

    oneDNN makes a kernel for every shape that it meets, which takes longer than to use it, and keeps a thousand of
    them. Widths differ between levels and layers: were any number of rows a shape of its own, it would hardly do
    anything else.
    """
    step = max(ROW_STEPS, 1 << max(0, (rows - 1).bit_length() - 1)) // ROW_STEPS
    return -(-rows // step) * step


class LaidOut(nn.Module):
    """A layer that keeps what it made of its tensors for a kernel, until they are moved, converted, loaded or copied.

    Tensors must not be changed in place once they were used. Threads may share a layer: at worst, those that meet at
    its first use each make the same, and one of them is kept.
    """

    def __init__(self) -> None:
        """Nothing is kept yet."""
        super().__init__()
        self._laid_out: dict[Any, Any] = {}

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move or convert the tensors; they are laid out anew at the next use."""
        self._laid_out = {}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        """Take other tensors; they are laid out anew at the next use."""
        self._laid_out = {}
        super()._load_from_state_dict(*arguments, **options)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the layout out of copies: it holds memory that cannot be copied."""
        return {**self.__dict__, "_laid_out": {}}


class Linear(LaidOut):
    """``nn.Linear`` without the random start, which a width of zero would only warn about.

    Weights that train, or that gradients pass through, are used as they are.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        """Allocate; the weights are loaded afterwards."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(
        self,
        inputs: Tensor,
        start: int = 0,
        stop: int | None = None,
        *,
        activation: str | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Return outputs ``start`` to ``stop`` of ``inputs W^T + b``, through an activation or added to a residual."""
        stop = self.bias.shape[0] if stop is None else stop
        bias = self.bias[start:stop]
        differentiated = torch.is_grad_enabled() and inputs.requires_grad
        if differentiated or self.weight.requires_grad or not blocked_kernels(inputs.device.type, inputs.dtype):
            return finish(functional.linear(inputs, self.weight[start:stop], bias), activation, residual)
        if (weight := self._laid_out.get((start, stop))) is None:
            plain = self.weight[start:stop].contiguous()
            weight = self._laid_out[start, stop] = torch.ops.mkldnn._reorder_linear_weight(plain, LAYOUT_ROWS)
        product: Tensor
        if residual is not None:
            product = torch.ops.mkldnn._linear_pointwise.binary(inputs, residual, weight, bias, "add")
        else:
            name, algorithm = ("none", "") if activation is None else ACTIVATIONS[activation]
            product = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, name, [], algorithm)
        return product


def finish(outputs: Tensor, activation: str | None, residual: Tensor | None) -> Tensor:
    """Return outputs of a product through an activation, by Hugging Face's name, and added to a residual, if any."""
    if activation == "relu":
        outputs = functional.relu(outputs)
    elif activation is not None:
        outputs = functional.gelu(outputs, approximate=ACTIVATIONS[activation][1])
    return outputs if residual is None else residual + outputs


@cache
def blocked_kernels(device: str, dtype: torch.dtype) -> bool:
    """Tell whether weights of this type on this kind of device are laid out."""
    return (
        device == "cpu"
        and dtype != torch.float16  # few processors have instructions for it
        and platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    )
