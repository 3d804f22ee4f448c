"""One pass over the calibration rows for what the dimensions inside heads need beyond the calibration.

Mask gradients of QK and VO units, as of heads and neurons: a mask of ones multiplies keys and values, one number per
sequence and dimension. (At the queries a QK unit would have the same one: q and k enter as q_d k_d alone.)

And what a lost QK unit does to the sublayer's output, to first order. Where the queries lose r_a, the score of token a
with token b loses e_ab = scale * r_a . k_b, the probability p_ab changes by p_ab times what e_ab lies under its mean,
and the output by -r_a^T C_a W_o^T, with

    C_a = scale * sum_b p_ab (k_b - sum_c p_ac k_c) v_b^T.

The mean square of that is tr(E[r r^T] E[C W_o^T W_o C^T]) if what queries lose is independent of what keys and values
make of it. This is assumed: it leaves two small matrices per head, the Gram of its queries and its *effect*, in place
of one number for every four units.

Letters: M micro-batches, m those of one batch, L layers, B rows of a batch, T tokens, R rows of queries, N heads, H, G
head dimension, W = N * H, A queries and S keys of one sequence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from pruning.capture import BATCH_ROWS, Progress, require_finite
from pruning.cost import Shape
from pruning.data import LabelledSet
from pruning.encoder import BaseModel
from pruning.memory import require_memory, unit_pass_bytes
from pruning.prediction import Breath, no_breath
from pruning.slim.attention import Heads
from pruning.slim.bert import Site
from pruning.slim.convert import build_slim, dense_mask, slim_layers
from pruning.slim.packed import Layout, PackedBatch
from pruning.tasks import TASKS

UNIT_PASS_VERSION = 1
"""Raised whenever the pass gives something else."""
EFFECT_ROWS = 256
"""Rows that effects are taken from, evenly among all."""
EFFECT_QUERIES = 32
"""Queries of one such row, likewise."""


@dataclass(frozen=True, slots=True)
class UnitStatistics:
    """What the pass leaves behind."""

    qk_gradients_MLNH: Tensor
    """Gradient of the summed loss of each micro-batch with respect to a mask of ones on each QK unit."""
    vo_gradients_MLNH: Tensor
    """The same for each VO unit."""
    query_grams_LNHH: Tensor
    """Mean of q q^T over the queries that the layer computes."""
    effects_LNHH: Tensor
    """Mean of C W_o^T W_o C^T."""

    def as_tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Rebuild from ``as_tensors``."""
        return cls(**{name: tensors[name] for name in cls.__slots__})


def unit_pass(
    base: BaseModel,
    rows: LabelledSet,
    *,
    micro_batch: int,
    progress: Progress = lambda done, total: None,
    breath: Breath = no_breath,
) -> UnitStatistics:
    """Return the statistics of all units over ``rows``, by the loss of their task; ``breath`` follows every batch.

    Raises:
        HostMemoryError: the pass would not fit into the memory of this machine.
        CacheError: a gradient is not finite; row and layer are named.
    """
    row_lengths = [len(sequence.ids) for sequence in rows.sequences]
    needed = unit_pass_bytes(base.shape, row_lengths, BATCH_ROWS, micro_batch=micro_batch, queries=EFFECT_QUERIES)
    require_memory(needed, "the pass for units inside heads", max(row_lengths))
    model = build_slim(base, slim_layers(base, dense_mask(base.shape)))
    gradients_mLW: list[Tensor] = []
    sums, task = _Sums(base), TASKS[rows.head]
    every = -(-len(rows) // EFFECT_ROWS)
    for start in range(0, len(rows), BATCH_ROWS):
        sequences = rows.sequences[start : start + BATCH_ROWS]
        lengths = row_lengths[start : start + BATCH_ROWS]
        batch = PackedBatch.from_sequences(sequences)
        gates = [torch.ones(len(sequences), 2 * base.shape.hidden, requires_grad=True) for _ in model.layers]
        measured = range(-start % every, len(sequences), every)
        watched = _Watched(batch, gates, sums, lengths, measured)
        outputs = model(replace(batch, layout=watched), _untouched)
        losses = task.loss(outputs, rows.labels[start : start + BATCH_ROWS], lengths)
        found_LBW = torch.stack(torch.autograd.grad(losses, gates))
        require_finite(torch.isfinite(found_LBW).all(2).T, rows, range(start, start + len(sequences)), 1)
        gradients_mLW += [part_LBW.sum(1) for part_LBW in found_LBW.split(micro_batch, dim=1)]
        progress(start + len(sequences), len(rows))
        breath()
    qk_MLW, vo_MLW = torch.stack(gradients_mLW).chunk(2, dim=2)
    return UnitStatistics(_by_head(qk_MLW, base.shape), _by_head(vo_MLW, base.shape), *sums.means())


def _untouched(layer: int, site: Site, values_RW: Tensor, sequence_R: Tensor) -> Tensor:
    """Change nothing: a model with a tap adds no rows of no sequence."""
    return values_RW


def _by_head(units_MLW: Tensor, shape: Shape) -> Tensor:
    by_head: Tensor = units_MLW.unflatten(2, (shape.num_heads, shape.head_dim))
    return by_head


class _Sums:
    """Grams of the queries and effects of every head, in double precision."""

    def __init__(self, base: BaseModel) -> None:
        shape = base.shape
        size = (shape.num_layers, shape.num_heads, shape.head_dim, shape.head_dim)
        self.grams_LNHH = torch.zeros(size, dtype=torch.float64)
        self.effects_LNHH = torch.zeros(size, dtype=torch.float64)
        self.queries_L = torch.zeros(shape.num_layers, dtype=torch.float64)
        self.measured_L = torch.zeros(shape.num_layers, dtype=torch.float64)
        self._outputs_LNHH = torch.stack([_output_roots(base, layer) for layer in range(shape.num_layers)])

    def add_queries(self, layer: int, query_RNH: Tensor) -> None:
        """Take the queries of a batch in."""
        self.grams_LNHH[layer] += torch.einsum("rnh,rng->nhg", query_RNH, query_RNH)
        self.queries_L[layer] += len(query_RNH)

    def add_effects(self, layer: int, query_ANH: Tensor, key_SNH: Tensor, value_SNH: Tensor, scale: float) -> None:
        """Take the effects of one sequence in."""
        query_ANH = query_ANH[:: -(-len(query_ANH) // EFFECT_QUERIES)]
        chances_NAS = torch.softmax(scale * torch.einsum("anh,snh->nas", query_ANH, key_SNH), dim=2)
        values_NSG = torch.einsum("snh,nhg->nsg", value_SNH, self._outputs_LNHH[layer])
        keys_NSH = key_SNH.transpose(0, 1)
        centred_NASH = keys_NSH[:, None] - (chances_NAS @ keys_NSH)[:, :, None]
        moved_NAHG = (chances_NAS[..., None] * centred_NASH).transpose(2, 3) @ values_NSG[:, None]
        self.effects_LNHH[layer] += scale**2 * torch.einsum("nahg,nakg->nhk", moved_NAHG, moved_NAHG)
        self.measured_L[layer] += len(query_ANH)

    def means(self) -> tuple[Tensor, Tensor]:
        """Return mean Grams and mean effects."""
        grams = self.grams_LNHH / self.queries_L[:, None, None, None]
        return grams.float(), (self.effects_LNHH / self.measured_L[:, None, None, None]).float()


def _output_roots(base: BaseModel, layer: int) -> Tensor:
    """Return a root of W_o^T W_o of every head: values times it are as long as values times W_o^T."""
    weight_DW = base.tensors[f"layers.{layer}.attention_output.weight"]
    weight_NDH: Tensor = weight_DW.unflatten(1, (base.shape.num_heads, base.shape.head_dim)).transpose(0, 1)
    return symmetric_root(weight_NDH.mT @ weight_NDH)


def symmetric_root(squares: Tensor) -> Tensor:
    """Return the symmetric root of positive semi-definite matrices, [..., H, H]."""
    values, vectors = torch.linalg.eigh(squares)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mT
    return root


@dataclass
class _Watched:
    """A layout that shows the queries, keys and values of every layer in turn, and passes the latter through gates."""

    batch: PackedBatch
    gates_LBW: Sequence[Tensor]
    sums: _Sums
    lengths: Sequence[int]
    measured: Sequence[int]
    """Sequences whose effects are taken."""
    layer: int = -1
    """The one that asked last."""

    def context(self, query_RNH: Tensor, key_value_TW: Tensor, heads: Heads, *, first_only: bool) -> Tensor:
        """Attend as the batch's own layout does."""
        self.layer += 1
        self._see(query_RNH.detach(), key_value_TW.detach(), heads, first_only=first_only)
        gated_TW = key_value_TW * self.gates_LBW[self.layer][self.batch.sequence_T]
        layout: Layout = self.batch.layout
        return layout.context(query_RNH, gated_TW, heads, first_only=first_only)

    def _see(self, query_RW: Tensor, key_value_TW: Tensor, heads: Heads, *, first_only: bool) -> None:
        query_RNH = query_RW.unflatten(1, (heads.count, -1))
        self.sums.add_queries(self.layer, query_RNH)
        key_TNH, value_TNH = key_value_TW.unflatten(1, (2, heads.count, -1)).unbind(1)
        queries = query_RNH.split([1] * len(self.lengths) if first_only else list(self.lengths))
        keys, values = key_TNH.split(list(self.lengths)), value_TNH.split(list(self.lengths))
        for index in self.measured:
            self.sums.add_effects(self.layer, queries[index], keys[index], values[index], heads.scale)
