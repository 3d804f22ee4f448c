"""What the figures mean, in plain words: which stage limits, and what sparsity can at most buy there.

Amdahl's law: if inference is a share ``f`` of the time, then a forward pass that takes no time at all makes the whole
``1 / (1 - f)`` times as fast, and no sparsity more. Where stages run side by side it is still a limit, a generous one.
"""

import math
from collections.abc import Mapping

WORTHLESS = 0.5
"""Share of inference under which the other stages decide."""
UNBOUND = 20.0
"""A limit of so many times lies beyond what any level of sparsity saves."""
NAMES = {
    "tokenization": "tokenization",
    "packing": "packing",
    "inference": "inference",
    "answer": "ranking and JSON",
    "rest": "HTTP, scheduling and the client",
}


def most_that_sparsity_buys(shares: Mapping[str, float]) -> float:
    """Return how many times as fast the whole would be if inference took no time: at least 1, infinite if it is all."""
    share = min(max(shares["inference"], 0.0), 1.0)
    return math.inf if share == 1.0 else 1.0 / (1.0 - share)


def limiting_stage(shares: Mapping[str, float]) -> str:
    """Return the stage that takes the largest share of the time."""
    return max(shares, key=lambda stage: shares[stage])


def verdict(shares: Mapping[str, float]) -> str:
    """Return one sentence on what limits, and on what less of the forward pass would bring."""
    limit, inference, most = limiting_stage(shares), shares["inference"], most_that_sparsity_buys(shares)
    at_most = f"at most {most:.1f} times" if most < UNBOUND else "nearly all that it takes off inference"
    if limit == "inference" and inference >= WORTHLESS:
        return f"inference limits, {inference:.0%} of the time; more sparsity can buy {at_most}"
    others = f"{NAMES[limit]} is {shares[limit]:.0%} of the time" if limit != "inference" else "no stage stands out"
    return f"{others}, inference {inference:.0%}; more sparsity will help little: {at_most}"
