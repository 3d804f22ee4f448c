"""A linear layer of 8-bit integers on the CPU: oneDNN's products, scales fixed beforehand.

Its input x of column k becomes the integer round(x * input_factor[k] + input_zero), cut off at 0 and 255. Its weights
are integers from -127 to 127 that took over what the factors of the columns differ by, so that one step of an input
and one of a weight of output n are together worth input_scale * weight_scale[n]. Scales do not depend on the batch: a
text is answered alike whoever shares its batch. The operators are those that ``torch.compile`` emits for quantized
models.

Letters: N outputs, K inputs.
"""

import platform
from functools import cache
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from pruning.errors import PrecisionError
from pruning.slim.linear import ACTIVATIONS, LAYOUT_ROWS, LaidOut

INPUT_TOP = 255
"""Largest integer of an input; the smallest is 0."""
WEIGHT_TOP = 127
"""Largest integer of a weight; the smallest is its negative."""


class _InputStep(NamedTuple):
    """What integers of an input stand for, as the kernels take it."""

    scale: float
    zero: int
    rounding: Tensor
    """The zero and a half: added before decimals are cut off, it rounds."""


class _Outputs(NamedTuple):
    """A range of outputs as the kernels take it."""

    weight: Tensor
    scale_N: Tensor
    zero_N: Tensor
    bias_N: Tensor


class QuantizedLinear(LaidOut):
    """``Linear`` in integers: takes reals, or what a layer that feeds it gives; gives float32, or integers to feed."""

    def __init__(self, inputs: int, outputs: int, feeds: "QuantizedLinear | None" = None) -> None:
        """Allocate; weights and scales are loaded afterwards.

        Args:
            inputs: K.
            outputs: N.
            feeds: takes the outputs as integers; it has one factor for all its inputs.
        """
        super().__init__()
        self.register_buffer("weight", torch.empty(outputs, inputs, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.empty(outputs))
        self.register_buffer("bias", torch.empty(outputs))
        self.register_buffer("input_factor", torch.empty(inputs))
        self.register_buffer("input_scale", torch.empty(()))
        self.register_buffer("input_zero", torch.empty(()))
        self._feeds = () if feeds is None else (feeds,)  # in a tuple, it is no submodule of this one

    weight: Tensor
    """int8 [N, K]."""
    weight_scale: Tensor
    """[N]."""
    bias: Tensor
    """[N]."""
    input_factor: Tensor
    """[K]."""
    input_scale: Tensor
    """[]."""
    input_zero: Tensor
    """[], a whole number."""

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
        step = self._input_step()
        if inputs.dtype != torch.uint8:
            inputs = torch.addcmul(step.rounding, inputs, self.input_factor).clamp_(0, INPUT_TOP).to(torch.uint8)
        given = self._outputs(start, self.bias.shape[0] if stop is None else stop)
        operands = (inputs, step.scale, step.zero, given.weight, given.scale_N, given.zero_N)
        qlinear = torch.ops.onednn.qlinear_pointwise
        product: Tensor
        if residual is not None:
            real = (1.0, 0, torch.float32)  # scale, zero and type of the result
            product = qlinear.binary(*operands, residual, given.bias_N, *real, 1.0, 0, "add", 1.0, "none", [], "")
            return product
        result = [(other.scale, other.zero, torch.uint8) for other in (layer._input_step() for layer in self._feeds)]
        name, algorithm = ("none", "") if activation is None else ACTIVATIONS[activation]
        product = qlinear(*operands, given.bias_N, *(result or [(1.0, 0, torch.float32)])[0], name, [], algorithm)
        return product

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move the tensors.

        Raises:
            PrecisionError: scales were to be converted.
        """
        super()._apply(fn, recurse)
        if self.weight_scale.dtype != torch.float32:
            raise PrecisionError("an int8 layer stays one; convert the float32 layers that it was made of")
        return self

    def _input_step(self) -> _InputStep:
        if (step := self._laid_out.get("step")) is None:
            step = _InputStep(float(self.input_scale), int(self.input_zero), self.input_zero + 0.5)
            self._laid_out["step"] = step
        return step

    def _outputs(self, start: int, stop: int) -> _Outputs:
        """Return these outputs' weights as the kernel wants them, laid out once."""
        if (given := self._laid_out.get((start, stop))) is None:
            plain = self.weight[start:stop].contiguous()
            packed = torch.ops.onednn.qlinear_prepack(plain, [LAYOUT_ROWS, plain.shape[1]])
            zeros = torch.zeros(stop - start, dtype=torch.int32)
            given = _Outputs(packed, self.weight_scale[start:stop], zeros, self.bias[start:stop])
            self._laid_out[start, stop] = given
        return given


def require_integers() -> None:
    """Return if this machine multiplies 8-bit integers.

    Raises:
        PrecisionError: its processor or its torch does not.
    """
    if not multiplies_integers():
        raise PrecisionError(
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
