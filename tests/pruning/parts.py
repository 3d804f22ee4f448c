"""Small builders that the tests of the core share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import BertForSequenceClassification

from pruning.calibration import Calibration, CalibrationKey
from pruning.cost import HeadDims, Shape
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.masks.structures import ROUND_TO, StructureMask
from pruning.masks.units import UnitMask
from pruning.scores import Streamed
from pruning.slim.bert import Site, SlimBert, Tap
from pruning.slim.convert import build_slim, dense_mask, slim_layers
from pruning.slim.packed import PackedBatch
from pruning.tokenization import Encoded
from pruning.unit_pass import UnitStatistics
from pruning.watched import Sightings
from pruning.weight_pass import Plan, Reading, weight_pass


def sequences_of(lengths: Iterable[int], *, vocabulary: int, seed: int = 0, pairs: bool = False) -> list[Encoded]:
    """Return random token ids of the given lengths; with ``pairs`` the second half of each has type 1."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for length in lengths:
        ids = torch.randint(5, vocabulary, (length,), generator=generator).tolist()
        first = length - length // 2 if pairs else length
        made.append(Encoded(ids, [0] * first + [1] * (length - first)))
    return made


def dense_model(base: BaseModel) -> SlimBert:
    return build_slim(base, slim_layers(base, dense_mask(base.shape)))


def reference_model(base: BaseModel) -> BertForSequenceClassification:
    """Return the library's own model of the same folder, in eval mode."""
    return BertForSequenceClassification.from_pretrained(base.path).eval()


def logits_of(model: SlimBert, sequences: Sequence[Encoded]) -> Tensor:
    with torch.inference_mode():
        return model(PackedBatch.from_sequences(sequences))


def mask_of(shape: Shape, heads: Sequence[Iterable[int]], neurons: Sequence[Iterable[int]]) -> StructureMask:
    """Return the mask that keeps ``heads[l]`` and ``neurons[l]`` in layer ``l``."""
    heads_LN = torch.zeros(shape.num_layers, shape.num_heads, dtype=torch.bool)
    neurons_LF = torch.zeros(shape.num_layers, shape.ffn, dtype=torch.bool)
    for layer in range(shape.num_layers):
        heads_LN[layer, list(heads[layer])] = True
        neurons_LF[layer, list(neurons[layer])] = True
    return StructureMask(heads_LN, neurons_LF)


def with_units(mask: StructureMask, shape: Shape, dims: Sequence[HeadDims], *, seed: int = 0) -> StructureMask:
    """Return the mask with ``dims[l]`` of the units of every head of layer ``l`` kept, each head's drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    units = UnitMask.whole(shape)
    for layer, (qk, vo) in enumerate(dims):
        for part_LNH, count in ((units.qk_LNH, qk), (units.vo_LNH, vo)):
            for head in range(shape.num_heads):
                part_LNH[layer, head, torch.randperm(shape.head_dim, generator=generator)[count:]] = False
    return replace(mask, units=units)


def random_statistics(shape: Shape, micro_batches: int = 3, seed: int = 0) -> UnitStatistics:
    """Return statistics of units as a pass could leave them."""
    generator = torch.Generator().manual_seed(seed)
    units = (shape.num_layers, shape.num_heads, shape.head_dim)
    gradients = torch.randn(2, micro_batches, *units, generator=generator)
    rows = torch.randn(2, *units, 100, generator=generator)
    grams = rows @ rows.mT / 100
    return UnitStatistics(*gradients, *grams)


def masking(mask: StructureMask, head_dim: int) -> Tap:
    """Return a tap that zeroes what ``mask`` does not keep."""

    def tap(layer: int, site: Site, inputs_RW: Tensor, sequence_R: Tensor) -> Tensor:
        if site not in (Site.ATTENTION, Site.FFN):
            return inputs_RW
        kept = mask.heads_LN[layer].repeat_interleave(head_dim) if site is Site.ATTENTION else mask.neurons_LF[layer]
        return inputs_RW * kept

    return tap


def flip_byte(path: Path, position: int = -1) -> None:
    """Change one bit of one byte of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


def everything_under(folder: Path) -> list[str]:
    """Return every file and folder below ``folder``, hidden ones too, by relative name."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class Recorder:
    """An accumulator that keeps every reading, for a test to look at."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []

    def add(self, reading: Reading) -> None:
        self.readings.append(reading)

    def finish(self) -> dict[str, Tensor]:
        return {}


def readings_of(base: BaseModel, rows: LabelledSet, plan: Plan | None = None, *, batch_rows: int = 8) -> list[Reading]:
    """Return the readings of one pass, batch by batch in the order that they were visited."""
    recorder = Recorder()
    weight_pass(base, rows, plan or Plan(), recorder, batch_rows=batch_rows)
    return recorder.readings


def scored(base: BaseModel, rows: LabelledSet, scorer: Streamed, *, batch_rows: int = 8) -> dict[str, Tensor]:
    """Return the sums of a streamed scorer's pass."""
    return weight_pass(base, rows, scorer.plan, scorer.accumulator(base), batch_rows=batch_rows)


def with_sums(calibration: Calibration, sums: Mapping[str, Tensor]) -> Calibration:
    """Return the calibration as a streamed scorer gets it."""
    return replace(calibration, load_sums=lambda: sums)


def gradients_reading(gradients: Mapping[str, Tensor]) -> Reading:
    """Return a reading of one row that shows these gradients and nothing else."""
    nothing = torch.zeros(0)
    return Reading(
        gradients=gradients,
        head_gradients_BLN=nothing,
        neuron_gradients_BLF=nothing,
        sightings=Sightings(),
        num_rows=1,
    )


def random_calibration(base: BaseModel, *, micro_batches: int = 3, seed: int = 0) -> Calibration:
    """Return a calibration of random numbers: what a formula makes of them needs no model."""
    generator = torch.Generator().manual_seed(seed)
    shape = base.shape

    def numbers(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    weights = base.prunable_weights()
    gradients = {f"mean.{name}": numbers(*weight.shape) for name, weight in weights.items()}
    gradients |= {f"square.{name}": numbers(*weight.shape).square() for name, weight in weights.items()}
    inputs = {
        (layer, site): numbers(100, width)
        for layer in range(shape.num_layers)
        for site, width in ((Site.ATTENTION, shape.hidden), (Site.FFN, shape.ffn))
    }
    return Calibration(
        key=CalibrationKey(
            weights=base.weights_digest,
            tokenizer=base.tokenizer_digest,
            architecture="random",
            rows="random",
            num_rows=micro_batches,
            max_length=48,
            loss="cross_entropy",
            micro_batch=1,
            batch=micro_batches,
            dtype="float32",
            seed=seed,
        ),
        head_gradients_MLN=numbers(micro_batches, shape.num_layers, shape.num_heads),
        neuron_gradients_MLF=numbers(micro_batches, shape.num_layers, shape.ffn),
        grams={place: inputs_RW.T @ inputs_RW for place, inputs_RW in inputs.items()},
        sensitivity={place: numbers(1).square().squeeze() for place in inputs},
        tokens_L=torch.full((shape.num_layers,), 100),
        load_weight_gradients=lambda: gradients,
    )


def half_a_block(base: BaseModel) -> float:
    """Return how far from what was asked for a cut in whole blocks of neurons may be."""
    return ROUND_TO * base.shape.neuron_weights / base.shape.prunable_weights / 2 + 1e-9
