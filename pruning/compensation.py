"""Make up for single weights that went: every row of a matrix is solved anew over the inputs that it kept.

With K the inputs that output o of a matrix W keeps, G = X^T X the Gram matrix of its inputs and H = G + r I,

    W[o, K] <- (W H)[o, K] (H[K, K])^-1,    all else zero,

r = 0.01 times G's mean diagonal, tokens weighed in the Gram of an output projection (``pruning.capture``): the exact
minimum of the output's squared error, with the ridge towards the cut weights. It is what Optimal Brain Surgeon leaves
of a row after removing the complement of K, in any order (Hassibi and Stork, 1993). Departures from SparseGPT (Frantar
and Alistarh, 2023), which is for matrices where a solution per row would take too long: it goes over the columns once
and lets only those to the right make up for one that went, and it chooses the mask on its way. Here the mask is the
scorer's, and all that is kept makes up for all that went.

A row takes |K|^3 / 3 multiplications. Letters: I inputs and O outputs of a matrix, K kept inputs of one output.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pruning.encoder import BaseModel
from pruning.masks.weights import WeightMask
from pruning.prediction import Breath, no_breath
from pruning.reconstruction import RIDGE, damping

COMPENSATION_VERSION = 1


def compensated_weights(
    base: BaseModel, mask: WeightMask, gram_of: Callable[[str], Tensor], breath: Breath = no_breath
) -> dict[str, Tensor]:
    """Return every masked weight [O, I] by name, zeros where the mask has them; ``gram_of`` gives a weight's Gram.

    ``breath`` is called after every matrix.
    """
    weights = {}
    for name, kept_OI in mask.items():
        weights[name] = compensated(base.tensors[name], gram_of(name), kept_OI)
        breath()
    return weights


def compensated(weight_OI: Tensor, gram_II: Tensor, kept_OI: Tensor, ridge: float = RIDGE) -> Tensor:
    """Return the kept weights that give the outputs nearest to the dense ones, zeros elsewhere.

    The squared output error on the calibration tokens never rises: the cut weights are among the candidates of the
    minimum, and the ridge pulls towards them. Of inputs that were never active, they come out.
    """
    if not gram_II.any():  # such a Gram has no ridge either: nothing could be solved
        return weight_OI * kept_OI
    damped_II = gram_II.clone()
    damped_II.diagonal().add_(damping(gram_II, ridge))
    return solved_rows(damped_II, weight_OI @ damped_II, kept_OI)


def solved_rows(gram_II: Tensor, target_OI: Tensor, kept_OI: Tensor) -> Tensor:
    """Return x [O, I] with ``x[o, K] gram[K, K] = target[o, K]`` for every output, zeros elsewhere.

    Args:
        gram_II: symmetric and positive definite.
        target_OI: right-hand sides.
        kept_OI: bool, True for the inputs K of each output.
    """
    solved_OI = torch.zeros_like(target_OI)
    for solved_I, target_I, kept_I in zip(solved_OI, target_OI, kept_OI, strict=True):
        kept = kept_I.nonzero().flatten()
        if kept.numel():
            factor_KK = torch.linalg.cholesky(gram_II[kept][:, kept])
            solved_I[kept] = torch.cholesky_solve(target_I[kept, None], factor_KK).squeeze(1)
    return solved_OI
