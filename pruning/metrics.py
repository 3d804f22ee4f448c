"""Metrics with their 95 % intervals. Arithmetic only.

No library: scikit-learn, SciPy and seqeval (whose last release is of 2020) would each be a new dependency for a few
lines.
"""

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""
RESAMPLES, BLOCK = 1000, 100
"""Bootstrap samples, and how many are held at a time."""

Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A named figure of merit, larger = better."""

    name: str
    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of it."""


def wilson_interval(successes: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson, 1927)."""
    if total == 0:
        return 0.0, 1.0
    share = successes / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def fisher_interval(correlation: float, total: int, z: float = Z_95) -> tuple[float, float]:
    """Return the interval of a Pearson correlation of ``total`` pairs by Fisher's z transform (Fisher, 1921)."""
    if total <= 3:
        return -1.0, 1.0
    if abs(correlation) >= 1.0:
        return correlation, correlation
    centre, spread = math.atanh(correlation), z / math.sqrt(total - 3)
    return math.tanh(centre - spread), math.tanh(centre + spread)


def bootstrap_interval(counts_NK: Reals, statistic: Callable[[Reals], Reals], *, seed: int = 0) -> tuple[float, float]:
    """Return the percentile bootstrap interval (Efron, 1979) of a statistic of summed counts.

    Args:
        counts_NK: what each of N rows contributes. Rows are drawn whole, as what stands in one is not independent.
        statistic: sums of the counts [B, K] -> its value for each, [B].
        seed: the same rows and seed give the same interval.
    """
    rows, random = len(counts_NK), np.random.default_rng(seed)
    shares_N = np.full(rows, 1 / rows)
    sums_BK = [random.multinomial(rows, shares_N, size=BLOCK) @ counts_NK for _ in range(RESAMPLES // BLOCK)]
    low, high = np.quantile(statistic(np.concatenate(sums_BK)), [0.025, 0.975])
    return float(low), float(high)


def pearson(ours_N: Reals, theirs_N: Reals) -> float:
    """Return Pearson's correlation; 0 where either is constant, which says nothing of the other."""
    ours, theirs = ours_N - ours_N.mean(), theirs_N - theirs_N.mean()
    scale = math.sqrt(float(ours @ ours) * float(theirs @ theirs))
    return min(1.0, max(-1.0, float(ours @ theirs) / scale)) if scale > 0 else 0.0


def spearman(ours_N: Reals, theirs_N: Reals) -> float:
    """Return Spearman's correlation: Pearson's of the ranks, equal values sharing their mean rank."""
    return pearson(_ranks(ours_N), _ranks(theirs_N))


def _ranks(values_N: Reals) -> Reals:
    _, place_N, counts_U = np.unique(values_N, return_inverse=True, return_counts=True)
    mean_rank_U = np.cumsum(counts_U) - (counts_U - 1) / 2
    ranks: Reals = mean_rank_U[place_N]
    return ranks


def matthews(predicted_N: NDArray[np.int64], true_N: NDArray[np.int64], labels: int) -> float:
    """Return the Matthews correlation of any number of labels (Gorodkin, 2004, eq. 8); 0 where it is undefined."""
    table_LL = np.zeros((labels, labels))
    np.add.at(table_LL, (true_N, predicted_N), 1)
    truths_L, guesses_L, total = table_LL.sum(1), table_LL.sum(0), table_LL.sum()
    covariance = np.trace(table_LL) * total - truths_L @ guesses_L
    scale = math.sqrt((total**2 - guesses_L @ guesses_L) * (total**2 - truths_L @ truths_L))
    return float(covariance / scale) if scale > 0 else 0.0


def f1(correct: Reals, predicted: Reals, true: Reals) -> Reals:
    """Return ``2 * correct / (predicted + true)``, elementwise; 1 where there was nothing to find and nothing found."""
    sizes = predicted + true
    return np.where(sizes > 0, 2 * correct / np.where(sizes > 0, sizes, 1), 1.0)


Entity = tuple[str, int, int]
"""(type, first word, one past the last)."""


def entities(tags: Sequence[str]) -> Set[Entity]:
    """Return the entities of BIO tags, as the CoNLL-2000 script ``conlleval`` reads them.

    ``B-X`` begins one; ``I-X`` goes on with one of type X, and begins one where there is none.
    """
    found: list[Entity] = []
    for index, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix == "I" and found and found[-1][0] == kind and found[-1][2] == index:
            found[-1] = (kind, found[-1][1], index + 1)
        elif prefix in ("B", "I"):
            found.append((kind, index, index + 1))
    return set(found)
