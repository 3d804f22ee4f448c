"""How fast a queue drains, measured by the batches that leave it."""

import math

MEMORY = 0.9
"""Weight that each batch leaves to those before it."""


class DrainRate:
    """Tokens that leave the queue in a second: a moving average over batches, weighted by their length.

    Batches may run side by side: a second in which two of them ran counts once. One in which something waited and none
    ran counts too: whoever waits does not care why.
    """

    def __init__(self) -> None:
        """Nothing is measured yet."""
        self._tokens = 0.0
        self._seconds = 0.0
        self._last_end = -math.inf

    def record(self, tokens: int, arrived: float, end: float) -> None:
        """Count a batch, in the order of their ends.

        Args:
            tokens: of the batch.
            arrived: when the first of its requests began to wait, in seconds of some clock.
            end: when it was done, by the same clock.
        """
        self._tokens = MEMORY * self._tokens + tokens
        self._seconds = MEMORY * self._seconds + end - max(arrived, self._last_end)
        self._last_end = end

    def tokens_in(self, seconds: float) -> float:
        """Return the tokens that leave the queue in ``seconds``; infinite before anything is measured."""
        return seconds * self._tokens / self._seconds if self._seconds else math.inf

    def seconds(self, tokens: int) -> float:
        """Return the seconds that ``tokens`` need at the measured rate; 0 before anything is measured."""
        return tokens * self._seconds / self._tokens if self._tokens else 0.0

    def seconds_for(self, tokens: int) -> int:
        """Return the whole seconds, at least one, that ``tokens`` need at the measured rate."""
        return max(1, math.ceil(self.seconds(tokens)))
