"""The cut model while it learns: its parameters, the zeros that stay zeros, its optimizer.

Only the encoder layers learn. Embeddings, pooler and head are the dense model's: every variant shares them, and the
dense model's hidden states are what the student's are compared with.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from pruning.cost import Shape
from pruning.encoder import BaseModel
from pruning.errors import RecoveryError
from pruning.quantization import without_ranges
from pruning.recovery.crew import SOLO, Crew
from pruning.recovery.fake_quantization import round_as_integers
from pruning.recovery.recipe import Recipe
from pruning.slim.bert import SlimLayer
from pruning.slim.convert import build_slim, layer_widths

LARGEST_GRADIENT = 1.0
"""Norm of all gradients together that longer ones are shortened to."""
MOMENTS = {"mean": "exp_avg", "square": "exp_avg_sq"}
"""Our names of what AdamW keeps of each parameter, and torch's."""
PARTS = ("weight", *MOMENTS)
"""What a student is of each parameter."""
LOCK = "kept."
"""Before the names of matrices in a state: which of their weights are not locked zeros."""


class GradientError(RecoveryError):
    """A gradient that is not finite."""

    def __init__(self, place: str) -> None:
        """Take the name of the uppermost parameter that has such a one: there gradients come in first."""
        super().__init__(f"the gradient of {place}")
        self.place = place


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
        """Copy ``layers``; zeros that are not ``kept``, as ``kept_weights`` tells, are never anything else.

        Layers that keep ranges of their inputs compute what the integers of ``pruning.quantization`` would.
        """
        self._base, self._recipe = base, recipe
        self.kept = {name: mask.to(device) for name, mask in (kept or {}).items()}
        self.device = device
        plain, ranges = without_ranges({name: tensor.clone() for name, tensor in layers.items()})
        self.model = build_slim(base, plain).to(device)
        for name, seen in ranges.items():
            round_as_integers(self.model, name, seen)
        self.parameters: dict[str, nn.Parameter] = {
            f"layers.{name}": parameter
            for name, parameter in self.model.layers.named_parameters()
            if parameter.numel()  # a layer without heads or neurons has matrices of no weight
        }
        others = [parameter for parameter in self.parameters.values() if parameter.ndim != 2]
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        self._optimizer = torch.optim.AdamW(
            [
                {"params": list(self.matrices.values()), "weight_decay": recipe.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
            fused=True,
        )

    @property
    def matrices(self) -> dict[str, nn.Parameter]:
        """The parameters whose weights may go."""
        return {name: parameter for name, parameter in self.parameters.items() if parameter.ndim == 2}

    @property
    def shape(self) -> Shape:
        """Of the dense model."""
        return self._base.shape

    @property
    def head_dim(self) -> int:
        """Dimensions of a head."""
        return self.shape.head_dim

    def counts(self) -> tuple[list[int], list[int]]:
        """Return the heads and neurons of every layer."""
        return [layer.heads.count for layer in self._layers()], [layer.num_neurons for layer in self._layers()]

    def _layers(self) -> list[SlimLayer]:
        return [layer for layer in self.model.layers if isinstance(layer, SlimLayer)]

    def fits(self, layers: Mapping[str, Tensor]) -> bool:
        """Tell whether ``layers`` have this student's widths, and zeros wherever its own are locked."""
        if layer_widths(layers, self._base.shape) != self.counts():
            return False
        return not any(layers[name][~kept.cpu()].any() for name, kept in self.kept.items())

    def learn(self, loss: Tensor, learning_rate: float, crew: Crew = SOLO) -> None:
        """Take one step down the gradient of ``loss``, of which every worker of the ``crew`` gives a part.

        Raises:
            GradientError: the gradient is not finite; no step was taken.
            RecoveryError: a worker is gone.
        """
        loss.backward()
        self._sum_gradients(crew)
        for name, kept in self.kept.items():
            gradient = self.parameters[name].grad
            assert gradient is not None  # every matrix takes part in the answer
            gradient.mul_(kept)  # without a gradient AdamW's moments stay 0, and so does a weight of 0
        norm = get_total_norm([one.grad for one in self.parameters.values() if one.grad is not None])
        if not torch.isfinite(norm):
            broken = self._not_finite()
            self._optimizer.zero_grad(set_to_none=True)
            raise GradientError(broken[-1] if broken else "all layers together")
        clip_grads_with_norm_(self.parameters.values(), LARGEST_GRADIENT, norm)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _sum_gradients(self, crew: Crew) -> None:
        """Put the sum of all workers' gradients in the place of this one's."""
        learning = [parameter for parameter in self.parameters.values() if parameter.grad is not None]
        mine = [parameter.grad for parameter in learning if parameter.grad is not None]
        for parameter, gradient in zip(learning, crew.total(mine), strict=True):
            parameter.grad = gradient

    def is_taught(self, loss: Tensor) -> bool:
        """Tell whether ``loss`` and its gradient are finite; no step is taken."""
        loss.backward()
        broken = self._not_finite()
        self._optimizer.zero_grad(set_to_none=True)
        return bool(torch.isfinite(loss)) and not broken

    def _not_finite(self) -> list[str]:
        """Return the names of the parameters whose gradient is not finite, bottom to top."""
        gradients = ((name, parameter.grad) for name, parameter in self.parameters.items())
        return [name for name, gradient in gradients if gradient is not None and not torch.isfinite(gradient).all()]

    def layers(self) -> dict[str, Tensor]:
        """Return a copy of all layers' tensors, on the CPU."""
        state = self.model.layers.state_dict()
        return {f"layers.{name}": tensor.detach().cpu().clone() for name, tensor in state.items()}

    def state(self) -> dict[str, Tensor]:
        """Return what must be known to go on: ``weight.``, ``mean.`` and ``square.`` of every parameter, the locks."""
        tensors = {f"weight.{name}": parameter.detach() for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            for ours, theirs in MOMENTS.items():
                tensors[f"{ours}.{name}"] = self._optimizer.state[parameter][theirs]
        tensors |= {f"{LOCK}{name}": kept for name, kept in self.kept.items()}
        return {name: tensor.cpu() for name, tensor in tensors.items()}

    def with_layers(self, layers: Mapping[str, Tensor], state: Mapping[str, Tensor], step: int) -> "Student":
        """Return a student of the widths of ``layers`` that goes on from ``state`` after ``step`` steps.

        Raises:
            RecoveryError: the tensors are not those of this student.
        """
        locks = {name.removeprefix(LOCK): kept for name, kept in state.items() if name.startswith(LOCK)}
        other = Student(self._base, layers, self._recipe, kept=self.kept | locks, device=self.device)
        other._restore(state, step)
        return other

    def narrowed(self, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], step: int) -> "Student":
        """Return this student, ``step`` steps old, with its layers and what the optimizer keeps of them changed."""
        state = self.state()
        changed = {
            f"{part}.{name}": tensor
            for part in PARTS
            for name, tensor in change({name: state[f"{part}.{name}"] for name in self.parameters}).items()
        }
        return self.with_layers(change(self.layers()), changed, step)

    def masked(self, kept: Mapping[str, Tensor], step: int, *, locked: bool) -> "Student":
        """Return this student, ``step`` steps old, with zeros for all weights that are not ``kept``.

        Where they are ``locked`` the optimizer forgets what it kept of them, and they stay zeros; else they go on.
        """
        state = self.state()
        for name, mask in kept.items():
            for part in PARTS if locked else PARTS[:1]:
                state[f"{part}.{name}"] = state[f"{part}.{name}"] * mask
            if locked:
                state[f"{LOCK}{name}"] = mask
        return self.with_layers(self.layers(), state, step)

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
