"""One streaming pass over the calibration rows for criteria on single weights: each brings its own small sums.

The model is frozen and in eval mode, everything is float32, and the loss of a batch is a sum over its rows, so that a
row's gradient does not depend on who shares its batch. Padding never enters, since there is none; below a head that
reads the first token alone, of the last layer only that one is computed (with the keys and values of all). What is held
is the model, one batch's gradients, and the sums.

Letters: B rows of a batch, L layers, N heads, F FFN neurons, I inputs and O outputs of a linear layer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from pruning.capture import BATCH_ROWS, Progress, require_labels
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.errors import CacheError
from pruning.files import digest_of
from pruning.gates import Gates
from pruning.memory import require_memory, weight_pass_bytes
from pruning.prediction import Breath, no_breath
from pruning.slim.packed import PackedBatch
from pruning.tasks import TASKS, Task
from pruning.tokenization import Encoded
from pruning.watched import Noise, Sightings, WatchedBert

ORDER_SEED = 0
UNLABELLED = "label it, or take a scorer that needs none, such as wanda or fisher_label_free"


class Loss(StrEnum):
    """What is differentiated."""

    NOTHING = "nothing"
    """No gradients: inputs and outputs alone."""
    LABELS = "labels"
    """The loss of the rows' task, summed over them."""
    OWN = "own"
    """Without labels: ``Task.own_losses``, the squares of whose gradients add up to the true Fisher information."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a pass shows."""

    loss: Loss = Loss.LABELS
    noise: Noise | None = None
    """With noise, gradients are means over noisy passes; inputs and outputs are always those without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One differentiated loss of one batch (or, without a loss, one batch), by tensor name."""

    gradients: Mapping[str, Tensor]
    """Gradient of the batch's loss for every prunable weight [O, I] and its bias [O]; empty without a loss."""
    head_gradients_BLN: Tensor
    """Gradient for a mask of ones on each head, row by row."""
    neuron_gradients_BLF: Tensor
    """The same for each FFN neuron."""
    sightings: Sightings
    num_rows: int


class Accumulator(Protocol):
    """The sums of one criterion."""

    def add(self, reading: Reading) -> None:
        """Take one reading in; nothing of it may be kept."""

    def finish(self) -> dict[str, Tensor]:
        """Return what the scores are made of."""


def weight_pass(
    base: BaseModel,
    rows: LabelledSet,
    plan: Plan,
    accumulator: Accumulator,
    *,
    batch_rows: int = BATCH_ROWS,
    progress: Progress = lambda done, total: None,
    breath: Breath = no_breath,
) -> dict[str, Tensor]:
    """Return what ``accumulator`` makes of the readings of all batches.

    Batches are visited in an order that was shuffled once and for all: rows are sorted by length, and sums that weigh
    the latest batches most would otherwise be those of the longest rows. Noise and signs depend on a batch's token ids
    alone, not on when it is visited. ``breath`` is called after every batch.

    Raises:
        DataError: the loss needs labels, and a row has none; the row is named.
        HostMemoryError: the pass would not fit into the memory of this machine.
        CacheError: a gradient or an input is not finite; the layer is named, and the rows, of inputs the whole batch's.
    """
    if plan.loss is Loss.LABELS:
        require_labels(rows, base.shape.labels, UNLABELLED)
    lengths = [len(sequence.ids) for sequence in rows.sequences]
    needed = weight_pass_bytes(base.shape, lengths, batch_rows, differentiated=plan.loss is not Loss.NOTHING)
    require_memory(needed, "this scorer's pass over the rows", max(lengths))
    model = WatchedBert(base)
    starts = range(0, len(rows), batch_rows)
    order = torch.randperm(len(starts), generator=torch.Generator().manual_seed(ORDER_SEED)).tolist()
    done = 0
    for start in (starts[index] for index in order):
        part = slice(start, start + batch_rows)
        for reading in _readings(base, model, rows.sequences[part], rows.labels[part], TASKS[rows.head], plan):
            _check_finite(reading, rows, start)
            accumulator.add(reading)
        done += len(rows.sequences[part])
        progress(done, len(rows))
        breath()
    return accumulator.finish()


def _readings(
    base: BaseModel, model: WatchedBert, sequences: Sequence[Encoded], labels: Tensor, task: Task, plan: Plan
) -> Iterator[Reading]:
    lengths = [len(sequence.ids) for sequence in sequences]
    batch, gates, sightings = PackedBatch.from_sequences(sequences), Gates(base.shape, len(sequences)), Sightings()
    generator = torch.Generator().manual_seed(seed_of(sequences))

    def losses_of(outputs: Tensor) -> list[Tensor]:
        if plan.loss is Loss.LABELS:
            return [task.loss(outputs, labels, lengths)]
        return task.own_losses(outputs, lengths, generator)

    def taken(backward_passes: int) -> Reading:
        heads_BLN, neurons_BLF = gates.take_gradients()
        return Reading(
            gradients={name: gradient / backward_passes for name, gradient in model.take_gradients().items()},
            head_gradients_BLN=heads_BLN / backward_passes,
            neuron_gradients_BLF=neurons_BLF / backward_passes,
            sightings=sightings,
            num_rows=len(sequences),
        )

    if plan.loss is not Loss.NOTHING and plan.noise is None:
        losses = losses_of(model.logits(batch, sightings.watch, gates.through))
        for number, loss in enumerate(losses, start=1):
            loss.backward(retain_graph=number < len(losses))
            yield taken(1)
        return
    with torch.no_grad():
        model.logits(batch, sightings.watch, gates.through)
    if plan.noise is None:
        yield _without_gradients(base, sightings, len(sequences))
        return
    watch = plan.noise.watch(sightings.output_deviations, generator)
    for _ in range(plan.noise.draws):
        for loss in losses_of(model.logits(batch, watch, gates.through)):
            loss.backward()
    yield taken(plan.noise.draws)


def _without_gradients(base: BaseModel, sightings: Sightings, num_rows: int) -> Reading:
    return Reading(
        gradients={},
        head_gradients_BLN=torch.zeros(0, base.shape.num_layers, base.shape.num_heads),
        neuron_gradients_BLF=torch.zeros(0, base.shape.num_layers, base.shape.ffn),
        sightings=sightings,
        num_rows=num_rows,
    )


def seed_of(sequences: Sequence[Encoded]) -> int:
    """Return the seed of a batch's noise and signs: it follows from its tokens alone."""
    return int(digest_of([[list(sequence.ids), list(sequence.type_ids)] for sequence in sequences])[:15], 16)


def _check_finite(reading: Reading, rows: LabelledSet, start: int) -> None:
    """Refuse what is not finite; of several layers the first is named, of rows those whose own gradients show it."""
    shown = (*reading.gradients.items(), *reading.sightings.input_squares.items())
    bad = {int(name.split(".")[1]) for name, tensor in shown if "layers." in name and not torch.isfinite(tensor).all()}
    if bad:
        masks = (reading.head_gradients_BLN, reading.neuron_gradients_BLF)
        finite_B = torch.stack([torch.isfinite(part_BLU).flatten(1).all(1) for part_BLU in masks]).all(0)
        own = [start + index for index in (~finite_B).nonzero().flatten().tolist()]
        named = rows.named(own or range(start, start + reading.num_rows))
        raise CacheError(
            f"the gradients or inputs of {named} are not finite in layer {min(bad)}; check these rows and the "
            "checkpoint"
        )
