"""Gradual cutting: structures go one after the other while the student trains, in place of all at once before.

The sparsity follows the cubic schedule of Zhu and Gupta (2017), from 0 to the cut's over the first ``gradual`` of the
run. How many heads and neurons go from each sublayer is what the cached cost curves say of that sparsity; which ones,
what the student's own task gradient says meanwhile: the mean of ``|dL/dm|`` over batches, m a mask of ones on the
structure's outputs, which equals ``|sum w dL/dw|`` over its output weights (GRAIN, Yang et al., 2023). L is the
cross-entropy with the rows' labels alone, without what the student is trained on beside (GRAIN's gradient separation).

Departures from GRAIN: its units are dimensions inside heads, ours are whole heads, so that its structure
regularisation, which empties heads that are nearly empty, has nothing to act on. It ranks all units in one list; ours
compete within their sublayer. And matrices shrink at once, every ``cut_every`` steps, in place of a mask at every step.

Letters: N heads, F neurons of a layer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pruning.recovery.crew import SOLO, Crew
from pruning.recovery.narrowing import Kept, narrowed
from pruning.recovery.recipe import Recipe
from pruning.recovery.student import Student
from pruning.slim.bert import Site

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

    def gradients(self, loss: Tensor, crew: Crew = SOLO) -> list[Tensor]:
        """Return the size of the gradient of ``loss`` at every gate: of all layers' heads, then of their neurons.

        ``loss`` is this worker's part of the whole ``crew``'s.
        """
        gates = [*self.heads, *self.neurons]
        found = torch.autograd.grad(loss, gates, retain_graph=True, allow_unused=True)  # an empty layer has no gate
        mine = [torch.zeros_like(gate) if one is None else one for gate, one in zip(gates, found, strict=True)]
        return [gradient.abs() for gradient in crew.total(mine)]


@dataclass(slots=True)
class Thinning:
    """The cutting of one run: what goes when, and what has been seen of what is left."""

    recipe: Recipe
    counts_at: Callable[[float], Counts]
    """Share of the sparsity -> heads and neurons that each layer keeps."""
    head_dim: int
    device: torch.device
    _scores: list[Tensor] = field(default_factory=list)
    """Of all layers' heads, then of their neurons, as the gates have them."""

    def is_over(self, student: Student) -> bool:
        """Tell whether all is gone that is to go."""
        return student.counts() == self.counts_at(1.0)

    def gates(self, student: Student) -> StudentGates:
        """Return the gates that the next batch is to pass."""
        return StudentGates(student.counts(), self.head_dim, self.device)

    def observe(self, gates: StudentGates, task_loss: Tensor, crew: Crew) -> None:
        """Take note of what the loss of the labels, the sum over the ``crew``, says of every structure."""
        seen = gates.gradients(task_loss, crew)
        if self._scores:
            seen = [DECAY * old + (1.0 - DECAY) * new for old, new in zip(self._scores, seen, strict=True)]
        self._scores = seen

    def thinned(self, student: Student, step: int, share: float) -> Student:
        """Return the student without what goes after ``step`` steps, at ``share`` of the run; some batch was seen."""
        over = min(1.0, share / self.recipe.gradual)
        if self.is_over(student) or (step % self.recipe.cut_every and over < 1.0):
            return student
        heads, neurons = self.counts_at(cubic(over))
        layers = len(heads)
        kept = [
            Kept(_largest(self._scores[layer], heads[layer]), _largest(self._scores[layers + layer], neurons[layer]))
            for layer in range(layers)
        ]
        self._scores = [
            *(score[one.heads] for score, one in zip(self._scores[:layers], kept, strict=True)),
            *(score[one.neurons] for score, one in zip(self._scores[layers:], kept, strict=True)),
        ]
        return student.narrowed(lambda tensors: narrowed(tensors, kept, self.head_dim), step)

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
    """Return the indices of the ``count`` largest scores, ascending; of equals the first."""
    order = torch.argsort(scores, descending=True, stable=True)
    return order[:count].sort().values
