"""What a variant is worth: accuracy with its interval, and agreement with the dense model."""

import math
from dataclasses import dataclass

from torch import Tensor

from pruning.data import LabelledSet

Z_95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Measured on labelled rows that took no part in scoring."""

    accuracy: float
    """Correct / total."""
    accuracy_low: float
    """Lower end of the 95 % Wilson score interval."""
    accuracy_high: float
    """Upper end of it."""
    agreement: float
    """Share of rows with the dense model's predicted label."""
    rows: int
    rows_digest: str = ""
    """Which rows: accuracies on other rows are not comparable."""
    screened: bool = False
    """Whether ``screened_logits`` answered the rows in place of ``predict_logits``; see ``pruning.prediction``."""


def wilson_interval(successes: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson, 1927)."""
    if total == 0:
        return 0.0, 1.0
    share = successes / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def evaluate(logits: Tensor, reference: Tensor, rows: LabelledSet) -> Evaluation:
    """Return the worth of ``logits`` [n, labels] on ``rows``, beside the dense model's ``reference`` logits."""
    predicted = logits.argmax(1)
    correct = int((predicted == rows.labels).sum())
    low, high = wilson_interval(correct, len(rows))
    return Evaluation(
        accuracy=correct / len(rows),
        accuracy_low=low,
        accuracy_high=high,
        agreement=float((predicted == reference.argmax(1)).double().mean()),
        rows=len(rows),
        rows_digest=rows.digest,
    )
