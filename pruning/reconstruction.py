"""Recover a cut without gradients or data: least squares on the cached Gram matrices.

After a cut the output projection sees only the inputs K that are left. The weights that best reproduce the dense
sublayer's output on the calibration tokens are

    W_out[:, K] <- (W G[:, K] + r W[:, K]) (G[K, K] + r I)^-1

with G = X^T D X of the *dense* model's inputs, D what each token weighs, and r = 0.01 times G's mean diagonal. It
equals the weights that Optimal Brain Surgeon leaves after removing the complement of K (Hassibi and Stork, 1993), with
a ridge towards W. Departures: tokens weigh the inverse of the variance that the norm after the sublayer divides by
(``pruning.capture``). Dense-input Grams ignore the error that arrives from earlier layers. And a reconstruction is
always kept, not only where the calibration loss does not rise: ridge least squares never raises a sublayer's squared
output error on the calibration rows, and to compute the loss itself would cost a pass over them per cut, which is more
than the whole cut. That the error falls does not prove that the loss falls; the evaluation of every variant tells.

Where dimensions inside heads went, keys are solved too. The product of a query with any key is linear in the query,
with the key as its weights: the keys' matrix is an output projection of the queries, on the Gram of each head's. Its
bias adds the same to all products of a query, which softmax does not see.

Letters: D outputs, W width of the site, K kept inputs, H head dimension.
"""

import torch
from torch import Tensor

from pruning.calibration import Calibration
from pruning.encoder import BaseModel
from pruning.errors import DataError
from pruning.masks.structures import StructureMask
from pruning.slim.bert import Site
from pruning.unit_pass import UnitStatistics

RECONSTRUCTION_VERSION = 1

RIDGE = 1e-2
"""Share of the Gram's mean diagonal added to it: fewer tokens than inputs make it singular."""

SITES = (("attention_output", Site.ATTENTION), ("ffn_out", Site.FFN))


def reconstruct(base: BaseModel, calibration: Calibration, mask: StructureMask) -> dict[tuple[int, str], Tensor]:
    """Return a new weight over the kept inputs for every output projection that lost some.

    The squared output error on the calibration tokens, weighed, never rises: the ridge pulls towards the cut weights,
    so that these are among the candidates of the minimum (a test holds this).
    """
    outputs: dict[tuple[int, str], Tensor] = {}
    for layer in range(base.shape.num_layers):
        _, values = mask.kept_dims(layer, base.shape.head_dim)
        for (slot, site), kept in zip(SITES, (values, mask.kept_neurons(layer)), strict=True):
            weight_DW = base.tensors[f"layers.{layer}.{slot}.weight"]
            if kept.numel() in (0, weight_DW.shape[1]):
                continue
            outputs[layer, slot] = least_squares(weight_DW, calibration.grams[layer, site], kept)
    return outputs


def solved_keys(base: BaseModel, mask: StructureMask, statistics: UnitStatistics) -> dict[tuple[int, str], Tensor]:
    """Return the rows of W_k of the kept units, by layer and slot, for every layer whose heads lost QK units."""
    assert mask.units is not None
    shape, keys = base.shape, {}
    for layer, dims in enumerate(mask.head_dims(shape)):
        if dims.qk == shape.head_dim:
            continue
        weights_NHD = base.tensors[f"layers.{layer}.key.weight"].unflatten(0, (shape.num_heads, shape.head_dim))
        heads = []
        for head in mask.kept_heads(layer).tolist():
            kept = mask.units.qk_LNH[layer, head].nonzero().flatten()
            heads.append(least_squares(weights_NHD[head].T, statistics.query_grams_LNHH[layer, head], kept).T)
        keys[layer, "key"] = torch.cat(heads)
    return keys


def least_squares(weight_DW: Tensor, gram_WW: Tensor, kept: Tensor, ridge: float = RIDGE) -> Tensor:
    """Return the ridge solution [D, K] over the ``kept`` inputs; of inputs that were never active, the cut."""
    if not gram_WW.any():  # such a Gram has no ridge either: nothing could be solved
        return weight_DW[:, kept].contiguous()
    strength = damping(gram_WW, ridge)
    gram_KK = gram_WW[kept][:, kept]
    gram_KK.diagonal().add_(strength)
    target_DK = weight_DW @ gram_WW[:, kept] + strength * weight_DW[:, kept]
    return torch.cholesky_solve(target_DK.T, torch.linalg.cholesky(gram_KK)).T.contiguous()


def require_tokens(tokens: int, inputs: int) -> None:
    """Refuse to solve a matrix of ``inputs`` on fewer tokens: they say too little of how its inputs go together.

    The ridge keeps every solution finite, but it does not make it a good one. Cut to 60 %, the embedded model lost 13
    points on held-out rows of SST-2 by what was solved on 834 tokens for 1,536 inputs, at least 10 with any ridge from
    0.001 to 1, and gained 2 by 3,507. Of the last layer below a pooled head, which sees one token of each row, no more
    is asked: solving it or not made no such difference.

    Raises:
        DataError: there are fewer tokens than inputs.
    """
    if tokens < inputs:
        raise DataError(
            f"{tokens} calibration tokens are too few to solve for {inputs} inputs: a cut recovered on them is worse "
            f"than the cut alone; give rows of at least {inputs} tokens in all (--train; of 'compare' also --rows), or "
            "use recover='none'"
        )


def damping(gram_WW: Tensor, ridge: float = RIDGE) -> Tensor:
    """Return what is added to the Gram's diagonal: ``ridge`` times its mean."""
    return ridge * gram_WW.diagonal().mean()


def output_error(weight_DW: Tensor, cut_DK: Tensor, gram_WW: Tensor, kept: Tensor) -> Tensor:
    """Return the squared error of the sublayer's output summed over the calibration tokens."""
    difference_DW = weight_DW.clone()
    difference_DW[:, kept] -= cut_DK
    return ((difference_DW @ gram_WW) * difference_DW).sum()
