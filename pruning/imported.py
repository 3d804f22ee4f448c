"""The cut that a checkpoint came with: its own zeros, found, told by pattern, and taken out where they let it.

Letters: D hidden, W width of all heads, F FFN neurons, I inputs and O outputs of a linear layer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.encoder import BaseModel
from pruning.errors import SpecError
from pruning.masks.structures import TOLERANCE, StructureMask
from pruning.masks.weights import GROUP
from pruning.slim.convert import dense_mask, slim_layers
from pruning.spec import TWO_FOUR_SPARSITY, Pattern, PruneSpec

IMPORTED_VERSION = 1
"""Raised whenever the same checkpoint gives another cut."""
LEAST_SPARSITY = 0.01
"""A checkpoint with fewer zeros is dense: rounding leaves some in any."""


@dataclass(frozen=True, slots=True)
class OwnZeros:
    """What is zero in a checkpoint's encoder, before anything is cut."""

    by_tensor: dict[str, float]
    """Prunable weight by slot name -> share of it that is zero."""
    pattern: Pattern
    """``structured`` where at least half of the zeros are whole heads and neurons, ``2:4`` where every group of four
    inputs has two zeros and hardly any more, else ``unstructured``."""
    structures: StructureMask
    """Heads and neurons that say nothing are gone. With the 2:4 pattern all stay, for its groups would not."""
    sparsity: float
    """Share of the prunable weights that is gone with them or zero."""

    @property
    def asked_for(self) -> float:
        """The sparsity under which it is served: rounded to a hundredth, or exactly that of the 2:4 pattern."""
        return TWO_FOUR_SPARSITY if self.pattern is Pattern.TWO_FOUR else min(0.99, round(self.sparsity, 2))


def own_zeros(base: BaseModel) -> OwnZeros:
    """Return the zeros of a model.

    A head or a neuron says nothing where the next matrix multiplies it by zeros alone, or where it is always 0: all
    its values, or its input weights, are zero with their biases. Without it the answers are the same.

    Raises:
        SpecError: hardly anything is zero.
    """
    weights, shape = base.prunable_weights(), base.shape
    zeros = sum(int((weight == 0).sum()) for weight in weights.values()) / shape.prunable_weights
    if zeros < LEAST_SPARSITY:
        raise SpecError(
            f"{base.name} is dense: {zeros:.2%} of its encoder weights are zero; import takes a checkpoint that was "
            "pruned before; cut this one with 'sparsedial prune'"
        )
    structures, pattern = _structures_left(base), Pattern.UNSTRUCTURED
    if structures.sparsity(shape) >= zeros / 2:
        pattern = Pattern.STRUCTURED
    elif zeros <= TWO_FOUR_SPARSITY + TOLERANCE and all(map(_is_two_four, weights.values())):
        pattern, structures = Pattern.TWO_FOUR, dense_mask(shape)
    left = sum(int((tensor != 0).sum()) for tensor in slim_layers(base, structures).values() if tensor.ndim == 2)
    return OwnZeros(
        by_tensor=zeros_by_tensor(base),
        pattern=pattern,
        structures=structures,
        sparsity=1.0 - left / shape.prunable_weights,
    )


def zeros_by_tensor(base: BaseModel) -> dict[str, float]:
    """Return the share of zeros of every prunable weight, by slot name."""
    return {name: float((weight == 0).double().mean()) for name, weight in base.prunable_weights().items()}


def imported_layers(base: BaseModel, spec: PruneSpec) -> dict[str, Tensor]:
    """Return the encoder layers' tensors of a model's own cut: zeros where it has them, whole structures taken out.

    Raises:
        SpecError: the model is dense, or its zeros are not those of ``spec``.
    """
    found = own_zeros(base)
    if spec.pattern is not found.pattern or abs(spec.sparsity - found.asked_for) > TOLERANCE:
        raise SpecError(
            f"{base.name} came with sparsity {found.asked_for:g}, pattern={found.pattern.value!r}, and with scorer="
            f"{spec.scorer!r} it has no other; got sparsity {spec.sparsity:g}, pattern={spec.pattern.value!r}: "
            "ask for its own, or for another scorer"
        )
    return slim_layers(base, found.structures)


def _structures_left(base: BaseModel) -> StructureMask:
    """Return the heads and neurons whose going changes an answer."""
    shape, tensors = base.shape, base.tensors
    heads, neurons = [], []
    for layer in range(shape.num_layers):
        name = f"layers.{layer}"
        width_W = _says_something(
            tensors[f"{name}.value.weight"],
            tensors[f"{name}.value.bias"],
            tensors[f"{name}.attention_output.weight"],
        )
        heads.append(width_W.view(shape.num_heads, shape.head_dim).any(1))
        neurons.append(
            _says_something(
                tensors[f"{name}.ffn_in.weight"], tensors[f"{name}.ffn_in.bias"], tensors[f"{name}.ffn_out.weight"]
            )
        )
    return StructureMask(torch.stack(heads), torch.stack(neurons))


def _says_something(weight_WD: Tensor, bias_W: Tensor, next_DW: Tensor) -> Tensor:
    """Return which values are ever other than 0 and then read: [W]. All activations that we know leave 0 alone."""
    given_W = (weight_WD != 0).any(1) | (bias_W != 0)
    return given_W & (next_DW != 0).any(0)


def _is_two_four(weight_OI: Tensor) -> bool:
    """Tell whether at most two of every four consecutive inputs of every output are not zero."""
    if weight_OI.shape[1] % GROUP:
        return False
    return int((weight_OI != 0).reshape(-1, GROUP).sum(1).max()) <= GROUP // 2
