"""How many tokens a batch may have so that it takes no longer than it should, for each level on each lane.

Cost is taken to be proportional to tokens. What a batch costs beside them matters in small ones alone, and those are
allowed without a measure.
"""

from weakref import WeakKeyDictionary

from service.drain_rate import MEMORY
from service.schedule import Lane

SMALL_TOKENS = 256
"""A batch up to it is always allowed: about ten short texts, which reach nine tenths of the rate of far more
(``python scripts/measure_lanes.py``)."""


class LevelPaces:
    """Tokens a second by level and lane: a moving average over batches. A level is forgotten with its engine."""

    def __init__(self, max_batch_s: float) -> None:
        """Nothing is measured yet.

        Args:
            max_batch_s: seconds that a batch should take at most.
        """
        self._max_batch_s = max_batch_s
        self._sums: WeakKeyDictionary[object, dict[Lane, tuple[float, float]]] = WeakKeyDictionary()

    def record(self, level: object, lane: Lane, tokens: int, seconds: float) -> None:
        """Count a finished batch."""
        lanes = self._sums.setdefault(level, {})
        tokens_before, seconds_before = lanes.get(lane, (0.0, 0.0))
        lanes[lane] = (MEMORY * tokens_before + tokens, MEMORY * seconds_before + seconds)

    def tokens(self, level: object, lane: Lane) -> int:
        """Return the tokens of the longest batch that should be run; a small one where nothing is measured."""
        tokens, seconds = self._sums.get(level, {}).get(lane, (0.0, 0.0))
        in_time = self._max_batch_s * tokens / seconds if seconds else 0.0
        return max(SMALL_TOKENS, int(in_time))
