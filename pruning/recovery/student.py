"""The cut model while it learns: its parameters, the zeros that stay zeros, its optimizer.

Only the encoder layers learn. Embeddings, pooler and head are the dense model's: every variant shares them, and the
dense model's hidden states are what the student's are compared with.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pruning.encoder import BaseModel
from pruning.errors import RecoveryError
from pruning.recovery.recipe import Recipe
from pruning.slim.attention import Heads
from pruning.slim.bert import SlimLayer
from pruning.slim.convert import build_slim, layer_heads, layer_widths

LARGEST_GRADIENT = 1.0
"""Norm of all gradients together that longer ones are shortened to."""
MOMENTS = {"mean": "exp_avg", "square": "exp_avg_sq"}
"""Our names of what AdamW keeps of each parameter, and torch's."""
PARTS = ("weight", *MOMENTS)
"""What a student is of each parameter."""


def kept_weights(layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return which weights of every matrix are not zero, True = kept: the pattern of an unstructured cut."""
    return {name: tensor != 0 for name, tensor in layers.items() if tensor.ndim == 2}


class Student:
    """A SlimBert that trains."""

    def __init__(
        self,
        base: BaseModel,
        layers: Mapping[str, Tensor],
        recipe: Recipe,
        *,
        kept: Mapping[str, Tensor] | None = None,
        device: torch.device,
    ) -> None:
        """Copy ``layers``; zeros that are not ``kept``, as ``kept_weights`` tells, are never anything else."""
        self._base, self._recipe = base, recipe
        self._kept = {name: mask.to(device) for name, mask in (kept or {}).items()}
        self.device = device
        self.model = build_slim(base, {name: tensor.clone() for name, tensor in layers.items()}).to(device)
        self.parameters: dict[str, nn.Parameter] = {
            f"layers.{name}": parameter
            for name, parameter in self.model.layers.named_parameters()
            if parameter.numel()  # a layer without heads or neurons has matrices of no weight
        }
        matrices = {name: parameter for name, parameter in self.parameters.items() if parameter.ndim == 2}
        others = [parameter for name, parameter in self.parameters.items() if name not in matrices]
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        self._optimizer = torch.optim.AdamW(
            [
                {"params": list(matrices.values()), "weight_decay": recipe.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
            fused=True,
        )

    def counts(self) -> tuple[list[int], list[int]]:
        """Return the heads and neurons of every layer."""
        return [layer.heads.count for layer in self.slim_layers()], [layer.num_neurons for layer in self.slim_layers()]

    def heads(self) -> list[Heads]:
        """Return the heads of every layer."""
        return [layer.heads for layer in self.slim_layers()]

    def slim_layers(self) -> list[SlimLayer]:
        """Return the layers that learn."""
        return [layer for layer in self.model.layers if isinstance(layer, SlimLayer)]

    def fits(self, layers: Mapping[str, Tensor]) -> bool:
        """Tell whether ``layers`` have this student's widths."""
        widths = layer_heads(layers, self._base.shape), layer_widths(layers, self._base.shape)
        return widths == (self.heads(), self.counts())

    def learn(self, loss: Tensor, learning_rate: float) -> None:
        """Take one step down the gradient of ``loss``.

        Raises:
            RecoveryError: the gradient is not finite.
        """
        loss.backward()
        for name, kept in self._kept.items():
            gradient = self.parameters[name].grad
            assert gradient is not None  # every matrix takes part in the answer
            gradient.mul_(kept)  # without a gradient AdamW's moments stay 0, and so does a weight of 0
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), LARGEST_GRADIENT)
        if not torch.isfinite(norm):
            raise RecoveryError("the gradient is not finite; train with a lower --learning-rate")
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def layers(self) -> dict[str, Tensor]:
        """Return a copy of all layers' tensors, on the CPU."""
        state = self.model.layers.state_dict()
        return {f"layers.{name}": tensor.detach().cpu().clone() for name, tensor in state.items()}

    def state(self) -> dict[str, Tensor]:
        """Return what must be known to go on: ``weight.``, ``mean.`` and ``square.`` of every parameter."""
        tensors = {f"weight.{name}": parameter.detach() for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            for ours, theirs in MOMENTS.items():
                tensors[f"{ours}.{name}"] = self._optimizer.state[parameter][theirs]
        return {name: tensor.cpu() for name, tensor in tensors.items()}

    def with_layers(self, layers: Mapping[str, Tensor], state: Mapping[str, Tensor], step: int) -> "Student":
        """Return a student of the widths of ``layers`` that goes on from ``state`` after ``step`` steps.

        Raises:
            RecoveryError: the tensors are not those of this student.
        """
        other = Student(self._base, layers, self._recipe, kept=self._kept, device=self.device)
        other._restore(state, step)
        return other

    def narrowed(
        self,
        change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
        step: int,
        head_counts: Mapping[str, Tensor] | None = None,
    ) -> "Student":
        """Return this student, ``step`` steps old, with its layers and what the optimizer keeps of them changed.

        ``head_counts`` are told of layers whose heads are not whole any more, by the names of ``HEAD_COUNT``.
        """
        state, layers = self.state(), self.layers()
        changed = {
            f"{part}.{name}": tensor
            for part in PARTS
            for name, tensor in change({name: state[f"{part}.{name}"] for name in self.parameters}).items()
        }
        numbers = {name: tensor for name, tensor in layers.items() if tensor.is_floating_point()}
        return self.with_layers({**change(numbers), **(head_counts or {})}, changed, step)

    def _restore(self, state: Mapping[str, Tensor], step: int) -> None:
        expected = {f"{part}.{name}": parameter.shape for name, parameter in self.parameters.items() for part in PARTS}
        wrong = [name for name, shape in expected.items() if name not in state or state[name].shape != shape]
        if wrong:
            raise RecoveryError(f"the checkpoint does not fit this cut, {wrong[0]} first; train without --resume")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[f"weight.{name}"])
                moments = {theirs: state[f"{ours}.{name}"].to(parameter.device) for ours, theirs in MOMENTS.items()}
                steps = torch.tensor(float(step), device=parameter.device)
                self._optimizer.state[parameter] = {"step": steps, **moments}
