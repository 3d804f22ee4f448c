"""Gradual cutting: structures go one after the other while the student trains, in place of all at once before.

The sparsity follows the cubic schedule of Zhu and Gupta (2017), from 0 to the cut's over the first ``gradual`` of the
run. How many heads and neurons go from each sublayer is what the cached cost curves say of that sparsity; which ones,
what the student's own task gradient says meanwhile: the mean of ``|dL/dm|`` over batches, m a mask of ones on the
structure's outputs, which equals ``|sum w dL/dw|`` over its output weights (GRAIN, Yang et al., 2023). L is the
cross-entropy with the rows' labels alone, without what the student is trained on beside (GRAIN's gradient separation).

Where dimensions inside heads go too, ``|sum w dL/dw|`` is taken of their own weights, as GRAIN has it: of a VO unit
over its output weights, of a QK unit over its row of queries and its bias.

Departures from GRAIN: it ranks all units in one list, and its structure regularisation empties heads that are nearly
empty; ours compete within their sublayer, heads with heads and units with those of their head, of which every kept one
keeps as many. And matrices shrink at once, every ``cut_every`` steps, in place of a mask at every step.

Letters: N heads, F neurons of a layer, H dimensions of each head for queries and keys, V for values.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pruning.cost import HeadDims
from pruning.recovery.narrowing import Kept, narrowed
from pruning.recovery.recipe import Recipe
from pruning.recovery.student import Student
from pruning.slim.bert import Site
from pruning.slim.convert import HEAD_COUNT

DECAY = 0.98
"""Share of a score that earlier batches have; GRAIN's 0.998 looks back further than a short run lasts."""

Counts = tuple[list[int], list[int]]
"""Heads and neurons of every layer."""


class StudentGates:
    """Masks of ones, one per structure, multiplied into every output projection's input."""

    def __init__(self, counts: Counts, head_dim: int, device: torch.device) -> None:
        """Make the gates of a student of these widths."""
        self._head_dim = head_dim
        self.heads = [torch.ones(count, device=device, requires_grad=True) for count in counts[0]]
        self.neurons = [torch.ones(count, device=device, requires_grad=True) for count in counts[1]]

    def tap(self, layer: int, site: Site, values_RW: Tensor, sequence_R: Tensor) -> Tensor:
        """Pass inputs of output projections through their gates."""
        if site is Site.ATTENTION:
            return values_RW * self.heads[layer].repeat_interleave(self._head_dim)
        if site is Site.FFN:
            return values_RW * self.neurons[layer]
        return values_RW

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Return the size of the gradient of ``loss`` at every gate: of all layers' heads, then of their neurons."""
        gates = [*self.heads, *self.neurons]
        found = torch.autograd.grad(loss, gates, retain_graph=True, allow_unused=True)  # an empty layer has no gate
        return [torch.zeros_like(gate) if one is None else one.abs() for gate, one in zip(gates, found, strict=True)]


class UnitGates:
    """Gates of neurons; of heads and the units inside them, the weights of queries and outputs in place of gates."""

    def __init__(self, student: Student) -> None:
        """Look into ``student``."""
        self._layers = student.slim_layers()
        self.neurons = [torch.ones(count, device=student.device, requires_grad=True) for count in student.counts()[1]]

    def tap(self, layer: int, site: Site, values_RW: Tensor, sequence_R: Tensor) -> Tensor:
        """Pass neurons through their gates."""
        return values_RW * self.neurons[layer] if site is Site.FFN else values_RW

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Return ``|sum w dL/dw|`` of all layers' heads, of their neurons, of QK units [N, H], of VO units [N, V]."""
        attending = [layer for layer in self._layers if layer.heads.count]
        weights = [
            tensor
            for layer in attending
            for tensor in (layer.qkv.weight, layer.qkv.bias, layer.attention_output.weight)
        ]
        asked = [*self.neurons, *weights]
        found = torch.autograd.grad(loss, asked, retain_graph=True, allow_unused=True)  # an empty layer has no gate
        products = [
            torch.zeros_like(tensor) if gradient is None else tensor.detach() * gradient
            for tensor, gradient in zip(asked, found, strict=True)
        ]
        of_weights = iter(products[len(self.neurons) :])
        qk_units, vo_units = [], []
        for heads in (layer.heads for layer in self._layers):
            if heads.count:
                rows_Q = next(of_weights).sum(1) + next(of_weights)
                qk_units.append(rows_Q[: heads.query_width].view(heads.count, heads.dims.qk))
                vo_units.append(next(of_weights).sum(0).view(heads.count, heads.dims.vo))
            else:
                qk_units.append(loss.new_zeros(0, heads.dims.qk))
                vo_units.append(loss.new_zeros(0, heads.dims.vo))
        whole_heads = [units_NV.sum(1) for units_NV in vo_units]
        return [one.abs() for one in (*whole_heads, *products[: len(self.neurons)], *qk_units, *vo_units)]


@dataclass(slots=True)
class Thinning:
    """The cutting of one run: what goes when, and what has been seen of what is left."""

    recipe: Recipe
    counts_at: Callable[[float], Counts]
    """Share of the sparsity -> heads and neurons that each layer keeps."""
    head_dim: int
    device: torch.device
    dims_at: Callable[[float], list[HeadDims]] | None = None
    """Share of the sparsity -> dimensions that each head of a layer keeps; None: heads stay whole."""
    _scores: list[Tensor] = field(default_factory=list)
    """Of all layers' heads, then of their neurons, as the gates have them; then of units."""

    def is_over(self, student: Student) -> bool:
        """Tell whether all is gone that is to go."""
        narrow = self.dims_at is None or [heads.dims for heads in student.heads()] == self.dims_at(1.0)
        return narrow and student.counts() == self.counts_at(1.0)

    def gates(self, student: Student) -> StudentGates | UnitGates:
        """Return the gates that the next batch is to pass."""
        if self.dims_at is not None:
            return UnitGates(student)
        return StudentGates(student.counts(), self.head_dim, self.device)

    def observe(self, gates: StudentGates | UnitGates, task_loss: Tensor) -> None:
        """Take note of what the loss of the labels says of every structure."""
        seen = gates.gradients(task_loss)
        if self._scores:
            seen = [DECAY * old + (1.0 - DECAY) * new for old, new in zip(self._scores, seen, strict=True)]
        self._scores = seen

    def thinned(self, student: Student, step: int, share: float) -> Student:
        """Return the student without what goes after ``step`` steps, at ``share`` of the run; some batch was seen."""
        over = min(1.0, share / self.recipe.gradual)
        if self.is_over(student) or (step % self.recipe.cut_every and over < 1.0):
            return student
        layers = student.slim_layers()
        of_heads, of_neurons, *of_units = (
            self._scores[start : start + len(layers)] for start in range(0, len(self._scores), len(layers))
        )
        counts = self.counts_at(cubic(over))
        heads = [_largest(scores_N, count) for scores_N, count in zip(of_heads, counts[0], strict=True)]
        neurons = [_largest(scores_F, count) for scores_F, count in zip(of_neurons, counts[1], strict=True)]
        self._scores = [
            *(scores_N[kept] for scores_N, kept in zip(of_heads, heads, strict=True)),
            *(scores_F[kept] for scores_F, kept in zip(of_neurons, neurons, strict=True)),
        ]
        if self.dims_at is None:
            whole = [Kept.whole_heads(*parts) for parts in zip(heads, neurons, student.heads(), strict=True)]
            return student.narrowed(lambda tensors: narrowed(tensors, whole), step)
        dims = self.dims_at(cubic(over))
        units = []
        for scores, counts_each in zip(of_units, zip(*dims, strict=True), strict=True):
            left = [scores_NU[kept] for scores_NU, kept in zip(scores, heads, strict=True)]
            units.append([_largest(scores_NU, count) for scores_NU, count in zip(left, counts_each, strict=True)])
            self._scores += [scores_NU.gather(1, kept) for scores_NU, kept in zip(left, units[-1], strict=True)]
        inside = [Kept.inside_heads(*parts) for parts in zip(heads, *units, neurons, student.heads(), strict=True)]
        head_counts = {
            HEAD_COUNT.format(layer): torch.tensor(count)
            for layer, (count, size) in enumerate(zip(counts[0], dims, strict=True))
            if size != (self.head_dim, self.head_dim)
        }
        return student.narrowed(lambda tensors: narrowed(tensors, inside), step, head_counts)

    def state(self) -> dict[str, Tensor]:
        """Return what must be known to go on."""
        return {f"score.{index}": score.cpu() for index, score in enumerate(self._scores)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state``."""
        found = sorted((name for name in state if name.startswith("score.")), key=lambda name: int(name[6:]))
        self._scores = [state[name].to(self.device) for name in found]


def cubic(over: float) -> float:
    """Return the share of the sparsity that is reached when ``over`` of the cutting is over: fast, then slower."""
    return 1.0 - (1.0 - over) ** 3


def _largest(scores: Tensor, count: int) -> Tensor:
    """Return the indices of the ``count`` largest scores along the last dimension, ascending; of equals the first."""
    order = torch.argsort(scores, dim=-1, descending=True, stable=True)
    return order[..., :count].sort(dim=-1).values
