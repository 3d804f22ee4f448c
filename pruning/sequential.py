"""Recover a cut on the inputs that it really sees: matrix by matrix, against the dense model.

``pruning.reconstruction`` solves every output projection on the dense model's inputs, as if nothing had been cut below.
Here the calibration rows flow through both models side by side, and bottom to top every matrix of the cut model is
fitted, by least squares with a bias and a ridge towards the cut weights, on the inputs that the layers below it, solved
before, give it:

- queries, keys and values, and the first matrix of an FFN: to what the same rows of the dense matrix make of the dense
  model's hidden states. The structures that are left go on to compute what they did. Keys of heads that lost
  dimensions are fitted to what the keys that ``pruning.reconstruction`` solved make of them. So do all of them where
  single weights were cut: every row is then solved over the weights that it kept
  (``pruning.compensation.solved_rows``).
- output projections: to h + W z + b - h', with z their inputs and h the residual in the dense model, h' the residual
  in the cut one: what must be added to the cut model's residual for the sum to be the dense model's. So an error from
  below is corrected as far as the kept inputs can express it, and is not only passed on.

That layers are solved in turn on what those solved before give them is ``true-sequential`` in the code of GPTQ (Frantar
et al., 2022); the target with the residual is K-prune's (Park et al., 2024), which solves output projections alone. A
calibration pass through both models for every cut: seconds in place of tenths; no gradients, no labels.

Letters: T tokens, R rows that a layer computes (T, or the sequences in the last), D hidden, I inputs and O outputs of a
matrix.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from pruning.compensation import solved_rows
from pruning.encoder import BaseModel
from pruning.masks.structures import StructureMask
from pruning.masks.weights import WeightMask
from pruning.memory import require_memory, sequential_bytes
from pruning.prediction import Breath, no_breath
from pruning.reconstruction import damping
from pruning.slim.bert import SlimBert, SlimLayer
from pruning.slim.convert import FUSED, SolvedWeights, build_slim, dense_mask, slim_layers, zeroed_layers
from pruning.slim.packed import PackedBatch, TokenSequence

SEQUENTIAL_VERSION = 1

BATCH_SEQUENCES = 32
SMALLEST_RIDGE = 1e-9
"""What is added where no input was ever active, so that there the cut weights come out."""


@dataclass(slots=True)
class _Flow:
    """One batch on its way through both models: what the next sublayer of each reads."""

    batch: PackedBatch
    dense_TD: Tensor
    cut_TD: Tensor


@torch.no_grad()
def recover_sequentially(
    base: BaseModel,
    mask: StructureMask | WeightMask,
    rows: Sequence[TokenSequence],
    breath: Breath = no_breath,
    keys: SolvedWeights | None = None,
) -> dict[str, Tensor]:
    """Return the encoder layers' tensors under ``mask``, every matrix and its bias solved anew on ``rows``.

    ``keys`` take the place of the base model's keys, of the layers that they are of. A sublayer that is cut entirely
    keeps an output bias: the mean of what its sums lack. Single weights that went stay zeros. ``breath`` is called
    after every batch of every matrix.

    Raises:
        HostMemoryError: the rows would not fit into the memory of this machine.
    """
    lengths = [len(row.ids) for row in rows]
    require_memory(sequential_bytes(base.shape, lengths, BATCH_SEQUENCES), "sequential recovery", max(lengths))
    dense = build_slim(base, slim_layers(base, dense_mask(base.shape)))
    if isinstance(mask, StructureMask):
        layers = slim_layers(base, mask, keys)
        wanted, solver = build_slim(base, layers), _Solver({}, breath)
    else:
        layers = zeroed_layers(base, mask)
        wanted, solver = dense, _Solver(_by_matrix(mask), breath)
    flows = []
    for start in range(0, len(rows), BATCH_SEQUENCES):
        batch = PackedBatch.from_sequences(rows[start : start + BATCH_SEQUENCES])
        flows.append(_Flow(batch, dense.embedded(batch), dense.embedded(batch)))
    last = base.shape.num_layers - 1
    for index in range(base.shape.num_layers):
        for sublayer in (_Attention(index, first_only=index == last and dense.pooler is not None), _Ffn(index)):
            layers |= _solve_inward(sublayer, wanted, layers, flows, solver)
            layers |= _solve_outward(sublayer, dense, build_slim(base, layers), layers, flows, solver)
    return layers


def _by_matrix(mask: WeightMask) -> dict[str, Tensor]:
    """Return a mask of full-width matrices by their names in a ``SlimBert``, which holds some as one."""
    kept = {name.removesuffix(".weight"): part for name, part in mask.items()}
    for layer in {name.rpartition(".")[0] for name in kept}:
        kept[f"{layer}.qkv"] = torch.cat([kept[f"{layer}.{slot}"] for slot in FUSED])
    return kept


@dataclass(frozen=True, slots=True)
class _Attention:
    """The attention sublayer of one layer, of whichever model."""

    index: int
    first_only: bool
    inward: str = "qkv"
    outward: str = "attention_output"
    norm: str = "attention_norm"

    def read(self, model: SlimBert, hidden_TD: Tensor, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Return (residual [R, D], inputs of the output projection [R, I])."""
        layer = cast(SlimLayer, model.layers[self.index])
        first_R = batch.first_B if self.first_only else None
        rows_RD = hidden_TD if first_R is None else hidden_TD.index_select(0, first_R)
        if layer.heads.count == 0:
            return rows_RD, rows_RD[:, :0]
        return rows_RD, layer.attention_inputs(hidden_TD, first_R, rows_RD, batch.layout)


@dataclass(frozen=True, slots=True)
class _Ffn:
    """The FFN of one layer, of whichever model."""

    index: int
    inward: str = "ffn_in"
    outward: str = "ffn_out"
    norm: str = "ffn_norm"

    def read(self, model: SlimBert, hidden_RD: Tensor, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Return (residual [R, D], inputs of the output projection [R, I])."""
        layer = cast(SlimLayer, model.layers[self.index])
        return hidden_RD, layer.ffn_inputs(hidden_RD) if layer.num_neurons else hidden_RD[:, :0]


_Sublayer = _Attention | _Ffn


def _solve_inward(
    sublayer: _Sublayer, wanted: SlimBert, layers: dict[str, Tensor], flows: list[_Flow], solver: "_Solver"
) -> dict[str, Tensor]:
    """Return the matrix that makes of the cut model's hidden states what its rows make of the dense model's."""
    matrix = getattr(wanted.layers[sublayer.index], sublayer.inward)
    if matrix.weight.shape[0] == 0:
        return {}
    pairs = ((flow.cut_TD, matrix(flow.dense_TD)) for flow in flows)
    return solver.solved(f"layers.{sublayer.index}.{sublayer.inward}", layers, pairs)


def _solve_outward(
    sublayer: _Sublayer,
    dense: SlimBert,
    cut: SlimBert,
    layers: dict[str, Tensor],
    flows: list[_Flow],
    solver: "_Solver",
) -> dict[str, Tensor]:
    """Return the output projection that brings the cut model's sums nearest to the dense ones; move the flows on."""
    project = getattr(dense.layers[sublayer.index], sublayer.outward)
    norm = getattr(dense.layers[sublayer.index], sublayer.norm)
    for flow in flows:
        residual_RD, inputs_RI = sublayer.read(dense, flow.dense_TD, flow.batch)
        flow.dense_TD = project(inputs_RI, residual=residual_RD)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for flow in flows:
            residual_RD, inputs_RI = sublayer.read(cut, flow.cut_TD, flow.batch)
            yield inputs_RI, flow.dense_TD - residual_RD

    name = f"layers.{sublayer.index}.{sublayer.outward}"
    solved = solver.solved(name, layers, pairs())
    for flow in flows:  # inputs are computed again: those of all batches would fill more memory than all else
        residual_RD, inputs_RI = sublayer.read(cut, flow.cut_TD, flow.batch)
        output_RD = inputs_RI @ solved[f"{name}.weight"].T + solved[f"{name}.bias"]
        flow.dense_TD, flow.cut_TD = norm(flow.dense_TD), norm(residual_RD + output_RD)
    return solved


@dataclass(frozen=True, slots=True)
class _Solver:
    """Solves one matrix after the other."""

    kept: Mapping[str, Tensor]
    """By matrix, bool [O, I]: the inputs that each output kept. Of a matrix that is not there, all."""
    breath: Breath

    def solved(
        self, name: str, layers: Mapping[str, Tensor], pairs: Iterable[tuple[Tensor, Tensor]]
    ) -> dict[str, Tensor]:
        """Return weight and bias of the ridge regression of targets [R, O] on inputs [R, I].

        The ridge is towards ``layers``; the bias has none.
        """
        weight_OI = layers[f"{name}.weight"].double()
        outputs, inputs = weight_OI.shape
        gram_II = torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64)  # the last input is a constant 1
        target_OI = torch.zeros(outputs, inputs + 1, dtype=torch.float64)
        for inputs_RI, targets_RO in pairs:
            inputs_RI = torch.cat([inputs_RI, inputs_RI.new_ones(len(inputs_RI), 1)], dim=1)
            gram_II += inputs_RI.T @ inputs_RI
            target_OI += targets_RO.T @ inputs_RI
            self.breath()
        if inputs:
            strength = damping(gram_II[:-1, :-1]).clamp(min=SMALLEST_RIDGE)
            gram_II.diagonal()[:-1].add_(strength)
            target_OI[:, :-1] += strength * weight_OI
        solved_OI = self._solution(name, gram_II, target_OI).float()
        return {f"{name}.weight": solved_OI[:, :-1].contiguous(), f"{name}.bias": solved_OI[:, -1].contiguous()}

    def _solution(self, name: str, gram_II: Tensor, target_OI: Tensor) -> Tensor:
        if name not in self.kept:
            return torch.cholesky_solve(target_OI.T, torch.linalg.cholesky(gram_II)).T
        kept_OI = self.kept[name]
        return solved_rows(gram_II, target_OI, torch.cat([kept_OI, kept_OI.new_ones(len(kept_OI), 1)], dim=1))
