"""The accuracy floor: where it lies if nobody set it, and the words for what is below it."""

from pruning.errors import PruningError

DEFAULT_ACCURACY_DROP = 0.05
"""The floor, where none is set: this much under the dense model's accuracy."""


class BelowFloor(PruningError):
    """A first start on a variant that would never be promoted."""


def accuracy_floor(configured: float | None, dense_accuracy: float) -> float:
    """Return the configured floor, or the default one."""
    return dense_accuracy - DEFAULT_ACCURACY_DROP if configured is None else configured


def below_floor(accuracy: float, floor: float) -> str:
    """Return the fact, with both numbers, as the end of a sentence about a variant."""
    return f"its accuracy {accuracy:.4f} is below the floor {floor:.4f}"
