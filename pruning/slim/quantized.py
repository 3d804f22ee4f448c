"""A linear layer of 8-bit integers on the CPU: oneDNN's products, scales fixed beforehand.

A real input x of column k is the integer round(x * factor[k] + zero) in 0 to 255, a weight of output n the integer
in -127 to 127 that times scale[n] gives it back. Scales do not depend on the batch, so a text is answered alike
whoever shares its batch. The operators are those that ``torch.compile`` emits for quantized models.
"""

import platform
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from pruning.errors import StoreError
from pruning.slim.linear import ACTIVATIONS, LAYOUT_ROWS

TOP = 255
"""Largest integer of an input; the smallest is 0."""
WEIGHT_TOP = 127

Part = tuple[Tensor, Tensor, Tensor, Tensor]
"""Packed weights, their scales and zeros, and the bias of a range of outputs."""


class QuantizedLinear(nn.Module):
    """``Linear`` in integers; takes reals, or integers from a layer that feeds it, and gives float32."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Allocate; weights and scales are loaded afterwards."""
        super().__init__()
        self.register_buffer("weight", torch.empty(outputs, inputs, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.empty(outputs))
        self.register_buffer("bias", torch.empty(outputs))
        self.register_buffer("input_factor", torch.empty(inputs))
        self.register_buffer("input_scale", torch.empty(()))
        self.register_buffer("input_zero", torch.empty(()))
        self._fed: QuantizedLinear | None = None
        self._parts: dict[tuple[int, int], Part] = {}
        self._numbers: tuple[float, int, Tensor] | None = None

    weight: Tensor
    """int8 [N, K], each column multiplied by what its inputs were divided by."""
    weight_scale: Tensor
    """[N]: a weight's real value is its integer times this."""
    bias: Tensor
    """[N]."""
    input_factor: Tensor
    """[K]: reals are multiplied by it to become integers."""
    input_scale: Tensor
    """The real value of one step of an input."""
    input_zero: Tensor
    """The integer that stands for 0."""

    def feed(self, other: "QuantizedLinear") -> None:
        """Give outputs as the integers that ``other`` takes, which has one factor for all its inputs."""
        object.__setattr__(self, "_fed", other)  # no submodule of this one

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
        scale, zero, offset = self._input_numbers()
        if inputs.dtype != torch.uint8:
            inputs = torch.addcmul(offset, inputs, self.input_factor).clamp_(0, TOP).to(torch.uint8)
        weight, scales, zeros, bias = self._part(start, self.bias.shape[0] if stop is None else stop)
        ops, product = torch.ops.onednn, torch.float32
        if residual is not None:
            return ops.qlinear_pointwise.binary(  # type: ignore[no-any-return]
                inputs, scale, zero, weight, scales, zeros, residual, bias, 1.0, 0, product, 1.0, 0, "add", 1.0, "none",
                [], "",
            )  # fmt: skip
        out_scale, out_zero = 1.0, 0
        if self._fed is not None:
            out_scale, out_zero, _ = self._fed._input_numbers()
            product = torch.uint8
        name, algorithm = ("none", "") if activation is None else ACTIVATIONS[activation]
        return ops.qlinear_pointwise(  # type: ignore[no-any-return]
            inputs, scale, zero, weight, scales, zeros, bias, out_scale, out_zero, product, name, [], algorithm
        )

    def _input_numbers(self) -> tuple[float, int, Tensor]:
        """Return (scale, zero, what is added so that cutting off decimals rounds)."""
        if self._numbers is None:
            self._numbers = float(self.input_scale), int(self.input_zero), self.input_zero + 0.5
        return self._numbers

    def _part(self, start: int, stop: int) -> Part:
        """Return the weights of these outputs as the kernel wants them, laid out once."""
        if (start, stop) not in self._parts:
            plain = self.weight[start:stop].contiguous()
            packed = torch.ops.onednn.qlinear_prepack(plain, [LAYOUT_ROWS, plain.shape[1]])
            zeros = torch.zeros(stop - start, dtype=torch.int32)
            self._parts[start, stop] = (packed, self.weight_scale[start:stop], zeros, self.bias[start:stop])
        return self._parts[start, stop]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the layout out of copies: it holds memory that cannot be copied."""
        return {**self.__dict__, "_parts": {}}


def require_integers() -> None:
    """Return if this machine multiplies 8-bit integers.

    Raises:
        StoreError: its processor or its torch does not.
    """
    if not multiplies_integers():
        raise StoreError(
            "precision 'int8' needs an x86-64 processor with VNNI (avx512_vnni or avx_vnni) and a torch with oneDNN; "
            "use 'float32' or 'bfloat16' here"
        )


@cache
def multiplies_integers() -> bool:
    """Tell whether the processor has the instructions, without which products overflow, and torch the operators."""
    capabilities = torch.cpu.get_capabilities()
    return (
        platform.machine() in ("x86_64", "AMD64")
        and any(capabilities.get(name, False) for name in ("avx512_vnni", "avx_vnni"))
        and torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.onednn, name) for name in ("qlinear_prepack", "qlinear_pointwise"))
    )
