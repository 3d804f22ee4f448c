"""The dense model with its linear layers watched: what goes in, what comes out, and what comes out exchanged.

Letters: B sequences, R rows that a layer computes, I inputs, O outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning.encoder import BaseModel
from pruning.slim.bert import Tap
from pruning.slim.convert import FUSED, build_slim, dense_mask, slim_layers, told_apart
from pruning.slim.linear import Linear, finish
from pruning.slim.packed import PackedBatch

Watch = Callable[[str, Tensor, Tensor], Tensor]
"""(name of the weight, inputs [R, I], outputs before any activation [R, O]) -> the outputs to go on with."""

LAYER_LINEARS = ("qkv", "attention_output", "ffn_in", "ffn_out")
HEAD_LINEARS = ("pooler", "classifier")


class WatchedLinear(nn.Module):
    """A linear layer, called as ``pruning.slim.linear.Linear`` is; one that holds several slots shows each apart."""

    def __init__(self, linear: Linear, names: Sequence[str], watch: Watch) -> None:
        """Take the tensors of ``linear``; ``names`` are those of its weights, from top to bottom."""
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias
        self._names = names
        self._watch = watch

    def forward(
        self,
        inputs: Tensor,
        start: int = 0,
        stop: int | None = None,
        *,
        activation: str | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Return what ``Linear`` does, of outputs that were shown first and may have been exchanged."""
        stop = self.bias.shape[0] if stop is None else stop
        width = self.bias.shape[0] // len(self._names)
        outputs = functional.linear(inputs, self.weight[start:stop], self.bias[start:stop])
        parts = zip(self._names[start // width : stop // width], outputs.split(width, dim=1), strict=True)
        outputs = torch.cat([self._watch(name, inputs, part) for name, part in parts], dim=1)
        return finish(outputs, activation, residual)


class WatchedBert:
    """The dense model, frozen and in eval mode, whose prunable weights and their biases collect gradients."""

    def __init__(self, base: BaseModel) -> None:
        """Build it over the base model's tensors, which stay as they are."""
        self._watch: Watch = _unchanged
        self._model = build_slim(base, slim_layers(base, dense_mask(base.shape)))
        self._parameters: dict[str, nn.Parameter] = {}
        for index, layer in enumerate(self._model.layers):
            for slot in LAYER_LINEARS:
                self._exchange(layer, slot, f"layers.{index}.")
        for slot in HEAD_LINEARS:
            if getattr(self._model, slot) is not None:  # a head that reads every token has no pooler
                self._exchange(self._model, slot, "")

    def _exchange(self, module: nn.Module, slot: str, prefix: str) -> None:
        linear = module.get_submodule(slot)
        assert isinstance(linear, Linear)  # the base model is not quantized
        slots = FUSED if slot == "qkv" else (slot,)
        module.add_module(slot, WatchedLinear(linear, [f"{prefix}{one}.weight" for one in slots], self._seen))
        if prefix:
            for part, parameter in linear.named_parameters():
                parameter.requires_grad_(True)
                self._parameters[f"{prefix}{slot}.{part}"] = parameter

    def _seen(self, name: str, inputs_RI: Tensor, outputs_RO: Tensor) -> Tensor:
        return self._watch(name, inputs_RI, outputs_RO)

    def logits(self, batch: PackedBatch, watch: Watch, tap: Tap) -> Tensor:
        """Return what the model does; ``watch`` sees every linear layer, pooler and classifier too."""
        self._watch = watch
        try:
            # With a tap nothing is filled up: every row that a layer computes is a token.
            logits: Tensor = self._model(batch, tap)
        finally:
            self._watch = _unchanged
        return logits

    def take_gradients(self) -> dict[str, Tensor]:
        """Return the gradients since the last call of every prunable weight and its bias, by tensor name."""
        gradients: dict[str, Tensor] = {}
        for name, parameter in self._parameters.items():
            assert parameter.grad is not None  # every prunable weight takes part in the loss
            gradients |= told_apart(name, parameter.grad)
            parameter.grad = None
        return gradients


def _unchanged(name: str, inputs_RI: Tensor, outputs_RO: Tensor) -> Tensor:
    return outputs_RO


@dataclass(frozen=True, slots=True)
class Sightings:
    """What a forward pass over one batch showed of every linear layer, by the name of its weight."""

    input_squares: dict[str, Tensor] = field(default_factory=dict)
    """Sum over rows of each squared input, [I]."""
    output_means: dict[str, Tensor] = field(default_factory=dict)
    """Mean over rows of each output, [O]."""
    output_deviations: dict[str, Tensor] = field(default_factory=dict)
    """Standard deviation of all outputs of the layer, over rows and outputs together."""

    def watch(self, name: str, inputs_RI: Tensor, outputs_RO: Tensor) -> Tensor:
        """Write down what a linear layer takes and gives; a watch."""
        self.input_squares[name] = inputs_RI.detach().square().sum(0)
        self.output_means[name] = outputs_RO.detach().mean(0)
        self.output_deviations[name] = outputs_RO.detach().std(correction=0)
        return outputs_RO


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Gaussian noise on the outputs of linear layers."""

    sigma: float
    relative: bool
    """Whether sigma is a share of the standard deviation of each layer's outputs over the batch, or absolute."""
    draws: int = 10
    """Noisy passes over which a gradient is averaged."""

    def watch(self, deviations: Mapping[str, Tensor], generator: torch.Generator) -> Watch:
        """Return the watch that adds noise drawn from ``generator``."""

        def noisy(name: str, inputs_RI: Tensor, outputs_RO: Tensor) -> Tensor:
            scale = self.sigma * deviations[name] if self.relative else self.sigma
            return outputs_RO + scale * torch.randn(outputs_RO.shape, generator=generator)

        return noisy
