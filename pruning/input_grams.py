"""One pass over the calibration rows for the Gram matrices of the inputs of every prunable matrix.

The calibration has those of the two output projections of a layer; here are those that read the hidden states: queries,
keys and values, and the first matrix of an FFN. All are the dense model's. Padding never enters, since there is none;
below a head that reads the first token alone, the last layer's queries and FFN see only that one.

Letters: I inputs of a matrix, R rows that a layer computes, O outputs.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pruning.calibration import Calibration
from pruning.capture import BATCH_ROWS, Progress
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.memory import input_grams_bytes, require_memory
from pruning.prediction import Breath, no_breath
from pruning.slim.bert import Site
from pruning.slim.packed import PackedBatch
from pruning.watched import WatchedBert

INPUT_GRAMS_VERSION = 1

CALIBRATED = {"attention_output": Site.ATTENTION, "ffn_out": Site.FFN}
"""Slots whose Gram matrices are part of every calibration."""
SHARING = {"query": "query", "key": "key", "value": "key", "ffn_in": "ffn_in"}
"""The other slots, and the one whose Gram matrix is theirs too."""


@torch.no_grad()
def input_grams(
    base: BaseModel,
    rows: LabelledSet,
    progress: Progress = lambda done, total: None,
    breath: Breath = no_breath,
) -> dict[str, Tensor]:
    """Return ``X^T X`` [I, I] of the inputs X of queries, keys and first FFN matrices, by the name of the weight.

    Float32, summed over all tokens that a layer computes. ``breath`` is called after every batch.

    Raises:
        HostMemoryError: the pass would not fit into the memory of this machine.
    """
    lengths = [len(sequence.ids) for sequence in rows.sequences]
    needed = input_grams_bytes(base.shape, lengths, BATCH_ROWS)
    require_memory(needed, "the pass for input Gram matrices", max(lengths))
    model = WatchedBert(base)
    grams = {
        f"layers.{layer}.{slot}.weight": torch.zeros(base.shape.hidden, base.shape.hidden)
        for layer in range(base.shape.num_layers)
        for slot in sorted(set(SHARING.values()))
    }

    def watch(name: str, inputs_RI: Tensor, outputs_RO: Tensor) -> Tensor:
        if name in grams:
            grams[name].addmm_(inputs_RI.T, inputs_RI)
        return outputs_RO

    for start in range(0, len(rows), BATCH_ROWS):
        sequences = rows.sequences[start : start + BATCH_ROWS]
        model.logits(PackedBatch.from_sequences(sequences), watch, lambda layer, site, values_RW, _: values_RW)
        progress(start + len(sequences), len(rows))
        breath()
    return grams


def gram_of(name: str, calibration: Calibration, grams: Mapping[str, Tensor]) -> Tensor:
    """Return the Gram matrix [I, I] of the inputs of a prunable weight: of the calibration, or of ``input_grams``."""
    _, layer, slot, _ = name.split(".")
    if slot in CALIBRATED:
        return calibration.grams[int(layer), CALIBRATED[slot]]
    return grams[f"layers.{layer}.{SHARING[slot]}.weight"]
