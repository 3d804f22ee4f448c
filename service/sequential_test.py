"""A test of a share against a floor that may be looked at after every text, with one error rate for all looks.

Under a true share p of at least the floor f, each text multiplies the likelihood ratio of a share q < f against f by a
factor whose mean is 1 or less: the ratio is a supermartingale, and so is any fixed mixture of them. By Ville's
inequality (1939) it ever exceeds 1 / a with probability a at most. So a variant that holds its floor is turned back
with probability a at most, however often and whenever one looks (Robbins, 1970; Johari et al., 2017). The mixture is
over shares below the floor, closer together next to it, where more texts are needed anyway.
"""

import math
from functools import cache

ALTERNATIVES = 32
"""Shares below the floor that are weighed against it."""


def evidence_below(texts: int, agreed: int, floor: float) -> float:
    """Return the logarithm of the mixture's likelihood ratio: how much more likely shares below ``floor`` are.

    Args:
        texts: how many were compared.
        agreed: how many of them agreed.
        floor: in [0, 1]; at 0 nothing is below it, at 1 a single disagreement is proof.
    """
    disagreed = texts - agreed
    if floor <= 0.0 or texts == 0:
        return 0.0
    if floor >= 1.0:
        return math.inf if disagreed else 0.0
    terms = [agreed * up + disagreed * down for up, down in _log_ratios(floor)]
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms) / len(terms))


def is_below(texts: int, agreed: int, floor: float, error_rate: float) -> bool:
    """Tell whether the share is below ``floor``; it is said wrongly with probability ``error_rate`` at most, ever."""
    return evidence_below(texts, agreed, floor) >= -math.log(error_rate)


@cache
def _log_ratios(floor: float) -> tuple[tuple[float, float], ...]:
    """Return what an agreement and a disagreement each add to the log ratio, for every alternative."""
    shares = [floor * (1.0 - ((step + 1) / (ALTERNATIVES + 1)) ** 2) for step in range(ALTERNATIVES)]
    return tuple((math.log(share / floor), math.log((1.0 - share) / (1.0 - floor))) for share in shares)
