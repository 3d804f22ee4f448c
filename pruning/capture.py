"""The one pass over the calibration rows: mask and weight gradients, Gram matrices and sensitivities, together.

In a Gram matrix a token weighs the inverse of the variance that the norm after the sublayer divides it by, so that
errors count as they leave that norm. First tokens may have outputs many times as large as all others (Sun et al.,
"Massive Activations in Large Language Models", 2024): weighed alike, they alone would say what is kept and how the rest
makes up for it, and an error in them is one that the norm takes away. See ``docs/criteria.md``.

The model is frozen and in eval mode; sums are float32. Padding never enters, since there is none; below a head that
reads the first token alone, of the last layer only that one does, since nothing else is computed there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.errors import CacheError, DataError
from pruning.gates import GATED, Gates
from pruning.heads import Head
from pruning.memory import capture_bytes, require_memory
from pruning.prediction import Breath, no_breath
from pruning.slim.bert import Site, SlimBert
from pruning.slim.convert import build_slim, dense_mask, slim_layers, told_apart
from pruning.slim.packed import PackedBatch
from pruning.tasks import TASKS

Progress = Callable[[int, int], None]
"""(rows done, rows in all)."""

BATCH_ROWS = 32


INPUT_OF = {Site.ATTENTION_SUM: Site.ATTENTION, Site.FFN_SUM: Site.FFN}


@dataclass(slots=True)
class Captured:
    """The growing sums of one pass."""

    head_gradients_LN: list[Tensor] = field(default_factory=list)
    """One [L, N] per micro-batch."""
    neuron_gradients_LF: list[Tensor] = field(default_factory=list)
    """One [L, F] per micro-batch."""
    grams: dict[tuple[int, Site], Tensor] = field(default_factory=dict)
    token_weights: dict[tuple[int, Site], float] = field(default_factory=dict)
    """What all tokens weigh together in a Gram matrix; at the end their number."""
    output_gradient_squares: dict[tuple[int, Site], Tensor] = field(default_factory=dict)
    """Sum over tokens of the squared norm of the gradient at a sublayer's output."""
    tokens: dict[int, int] = field(default_factory=dict)
    weight_means: dict[str, Tensor] = field(default_factory=dict)
    weight_squares: dict[str, Tensor] = field(default_factory=dict)


class Capturing:
    """The tap of one batch: what passes by is added to the sums of ``captured``, and goes on through the gates."""

    def __init__(self, captured: Captured, gates: Gates, norm_eps: float) -> None:
        """Use all; Gram matrices and output gradients are added to ``captured`` in place."""
        self._captured = captured
        self._gates = gates
        self._norm_eps = norm_eps
        self._inputs: dict[Site, Tensor] = {}
        """Of the sublayer that is being computed, until it is known what each token weighs."""

    def tap(self, layer: int, site: Site, values_RW: Tensor, sequence_R: Tensor) -> Tensor:
        """Add to the sums of this site, and pass inputs of output projections through the gates of their sequences."""
        if site not in GATED:
            values_RW.register_hook(partial(self._add_output_gradient, layer, INPUT_OF[site]))
            self._add_gram(layer, INPUT_OF[site], values_RW.detach())
            return values_RW
        self._inputs[site] = values_RW.detach()
        if site is Site.FFN:
            self._captured.tokens[layer] = self._captured.tokens.get(layer, 0) + values_RW.shape[0]
        return self._gates.through(layer, site, values_RW, sequence_R)

    def _add_gram(self, layer: int, site: Site, sum_RD: Tensor) -> None:
        """Add the products of the inputs of a sublayer's output projection, once the norm's input is known."""
        inputs_RW, captured, place = self._inputs.pop(site), self._captured, (layer, site)
        weight_R1 = 1.0 / (sum_RD.var(1, correction=0, keepdim=True) + self._norm_eps)
        weighed_RW, width = weight_R1.sqrt() * inputs_RW, inputs_RW.shape[1]
        captured.grams.setdefault(place, torch.zeros(width, width)).addmm_(weighed_RW.T, weighed_RW)
        captured.token_weights[place] = captured.token_weights.get(place, 0.0) + float(weight_R1.double().sum())

    def _add_output_gradient(self, layer: int, site: Site, gradient_RD: Tensor) -> None:
        sums = self._captured.output_gradient_squares
        total = sums.setdefault((layer, site), torch.zeros((), dtype=torch.float64))
        total += gradient_RD.double().square().sum()


def capture(
    base: BaseModel, rows: LabelledSet, *, micro_batch: int, progress: Progress, breath: Breath = no_breath
) -> Captured:
    """Return what one pass over ``rows`` collects.

    The loss of a batch is that of the rows' task, summed over them, so that a row's gradient does not depend on who
    shares its batch. ``breath`` is called after every batch.

    Raises:
        DataError: a row has no label of the model's; it is named.
        HostMemoryError: the pass would not fit into the memory of this machine.
        CacheError: a gradient or a sum of them is not finite; the layer is named, and of a gradient the rows.
    """
    require_labels(rows, base.shape.labels, "label it")
    lengths = [len(sequence.ids) for sequence in rows.sequences]
    require_memory(capture_bytes(base.shape, lengths, BATCH_ROWS), "the calibration pass", max(lengths))
    model = build_slim(base, slim_layers(base, dense_mask(base.shape)))
    captured, task = Captured(), TASKS[rows.head]
    trained = _require_weight_gradients(model)
    for start in range(0, len(rows), BATCH_ROWS):
        stop = min(start + BATCH_ROWS, len(rows))
        gates = Gates(base.shape, stop - start)
        sequences = rows.sequences[start:stop]
        outputs = model(PackedBatch.from_sequences(sequences), Capturing(captured, gates, base.norm_eps).tap)
        task.loss(outputs, rows.labels[start:stop], lengths[start:stop]).backward()
        heads_mLN, neurons_mLF = gates.take_gradients(micro_batch)
        finite_mL = torch.isfinite(heads_mLN).all(2) & torch.isfinite(neurons_mLF).all(2)
        require_finite(finite_mL, rows, range(start, stop), micro_batch)
        captured.head_gradients_LN += list(heads_mLN)
        captured.neuron_gradients_LF += list(neurons_mLF)
        _add_weight_gradients(captured, trained)
        progress(stop, len(rows))
        breath()
    num_batches = -(-len(rows) // BATCH_ROWS)
    for total in captured.weight_means.values():
        total /= len(rows)
    for total in captured.weight_squares.values():
        total /= num_batches
    for (layer, site), gram in captured.grams.items():
        gram *= captured.tokens[layer] / captured.token_weights[layer, site]
        captured.token_weights[layer, site] = captured.tokens[layer]
    _check_sums(captured)
    return captured


def _require_weight_gradients(model: SlimBert) -> dict[str, Tensor]:
    """Switch gradients on for the prunable weights alone; return them by module name."""
    trained = {}
    for name, parameter in model.layers.named_parameters():
        if parameter.ndim == 2:
            trained[f"layers.{name}"] = parameter.requires_grad_(True)
    return trained


def _add_weight_gradients(captured: Captured, trained: Mapping[str, Tensor]) -> None:
    """Add each weight's batch gradient and its square."""
    for name, parameter in trained.items():
        assert parameter.grad is not None  # every prunable weight takes part in the loss
        for part_name, gradient in told_apart(name, parameter.grad).items():
            for sums, term in ((captured.weight_means, gradient), (captured.weight_squares, gradient.square())):
                sums[part_name] = sums[part_name].add_(term) if part_name in sums else term.clone()
        parameter.grad = None


def require_labels(rows: LabelledSet, num_labels: int, remedy: str) -> None:
    """Refuse texts of which one has no label of the model's; tags and answers may be left out, and then teach nothing.

    Args:
        rows: of any task.
        num_labels: labels are numbered below it.
        remedy: how the message ends.

    Raises:
        DataError: the first such row is named.
    """
    if rows.head is not Head.LABEL:
        return
    if rows.labels.shape != (len(rows),):
        raise DataError(f"{len(rows)} rows have {rows.labels.numel()} labels; give every row one, or {remedy}")
    missing = ((rows.labels < 0) | (rows.labels >= num_labels)).nonzero().flatten().tolist()
    if missing:
        raise DataError(
            f"{rows.named(missing[:1])} has no label of this model ({int(rows.labels[missing[0]])}, not 0 to "
            f"{num_labels - 1}); {remedy}"
        )


def require_finite(finite_mL: Tensor, rows: LabelledSet, batch: range, micro_batch: int) -> None:
    """Refuse gradients that are not finite; of several micro-batches, and of several layers, the first is named.

    Args:
        finite_mL: bool, of each micro-batch and layer.
        rows: all rows.
        batch: those that the micro-batches are of.
        micro_batch: rows of each.

    Raises:
        CacheError: one is not.
    """
    if not finite_mL.all():
        number, layer = (int(place) for place in (~finite_mL).nonzero()[0])
        named = rows.named(batch[number * micro_batch : (number + 1) * micro_batch])
        raise CacheError(f"the gradient of {named} is not finite in layer {layer}; check these rows and the checkpoint")


def _check_sums(captured: Captured) -> None:
    """Refuse sums that left the range of float32, though every term was in it; the first is named."""
    sums: dict[str, Tensor] = {f"layers.{layer} {site}": gram for (layer, site), gram in captured.grams.items()}
    for name, total in (sums | captured.weight_means | captured.weight_squares).items():
        if not torch.isfinite(total).all():
            raise CacheError(
                f"what the calibration rows sum up to at {name} is not finite; check the checkpoint, whose values are "
                "too large there to be squared in float32"
            )
