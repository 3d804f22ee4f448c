"""A latency histogram with logarithmic buckets: small, mergeable, with a known relative error.

Percentiles of several runs or phases come from merged histograms, never from averaged percentiles.
"""

import math
from collections import Counter
from collections.abc import Iterable

GROWTH = 1.01
"""Ratio of a bucket's upper bound to its lower one."""
RELATIVE_ERROR = math.sqrt(GROWTH) - 1
"""Most that a quantile can differ from the exact one, relative to it: 0.5 %."""
LOWEST_S = 1e-6
"""Values below it fall in the first bucket."""


class LatencyHistogram:
    """Counts of durations in seconds; bucket ``i`` covers ``LOWEST_S * GROWTH ** [i, i + 1)``."""

    def __init__(self, values_s: Iterable[float] = ()) -> None:
        """Count ``values_s``."""
        self._counts: Counter[int] = Counter()
        self._total = 0
        self._sum = 0.0
        self._low = math.inf
        self._high = 0.0
        for value in values_s:
            self.add(value)

    def add(self, value_s: float) -> None:
        """Count one duration. Raises ``ValueError`` when it is negative or not finite."""
        if not math.isfinite(value_s) or value_s < 0:
            raise ValueError(f"a duration must be finite and not negative; got {value_s}")
        self._counts[_bucket(value_s)] += 1
        self._total += 1
        self._sum += value_s
        self._low = min(self._low, value_s)
        self._high = max(self._high, value_s)

    def merged(self, other: "LatencyHistogram") -> "LatencyHistogram":
        """Return a histogram of both sets of values, as if they had been counted together."""
        result = LatencyHistogram()
        result._counts = self._counts + other._counts
        result._total = self._total + other._total
        result._sum = self._sum + other._sum
        result._low = min(self._low, other._low)
        result._high = max(self._high, other._high)
        return result

    def __len__(self) -> int:
        """Return how many values were counted."""
        return self._total

    @property
    def mean_s(self) -> float:
        """Exact mean in seconds; NaN when empty."""
        return self._sum / self._total if self._total else math.nan

    @property
    def max_s(self) -> float:
        """Exact largest value in seconds; NaN when empty."""
        return self._high if self._total else math.nan

    def quantile(self, q: float) -> float:
        """Return, within ``RELATIVE_ERROR``, the smallest counted value that a share ``q`` of all does not exceed.

        NaN when empty. Values under a microsecond are given as their bucket.
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile lies in [0, 1]; got {q}")
        if not self._total:
            return math.nan
        rank = max(1, math.ceil(q * self._total))
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= rank:
                return min(max(_middle(bucket), self._low), self._high)
        return self._high


def _bucket(value_s: float) -> int:
    if value_s <= LOWEST_S:
        return 0
    return math.floor(math.log(value_s / LOWEST_S) / math.log(GROWTH))


def _middle(bucket: int) -> float:
    """Return the geometric middle of a bucket in seconds."""
    return LOWEST_S * math.exp((bucket + 0.5) * math.log(GROWTH))
