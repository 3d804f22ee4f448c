"""Whether there is room for one more request: how long it would wait, against how long it may."""

from collections.abc import Callable

from service.drain_rate import DrainRate
from service.errors import Overloaded, TooLarge
from service.load_meter import LoadMeter
from service.policy import Policy
from service.settings import Settings

WAIT_SHARE = 0.6
"""Share of a latency target that a request may wait. Its batch, and its way in and out, take the rest."""


def longest_wait(max_queue_s: float, policy: Callable[[], Policy]) -> Callable[[], float]:
    """Return what tells how long a request may wait now: ``max_queue_s``, or less where the policy has a target."""

    def seconds() -> float:
        target_ms = policy().slo_p99_ms
        if target_ms is None:
            return max_queue_s
        return min(max_queue_s, WAIT_SHARE * target_ms / 1e3)

    return seconds


def room_under(settings: Settings, policy: Callable[[], Policy], meter: LoadMeter) -> "Room":
    """Return the room of a replica's queue; the policy is asked for each request."""
    wait = longest_wait(settings.max_queue_s, policy)
    return Room(max_tokens=settings.max_queue_tokens, max_wait_s=wait, meter=meter)


class Room:
    """Bounds what waits in tokens, and in seconds at the rate at which it was seen to be answered."""

    def __init__(self, *, max_tokens: int, max_wait_s: Callable[[], float], meter: LoadMeter) -> None:
        """Nothing is measured yet.

        Args:
            max_tokens: bound in tokens; what has left the queue for a batch no longer counts.
            max_wait_s: bound in seconds, as of now.
            meter: told what is refused.
        """
        self._max_tokens = max_tokens
        self._max_wait_s = max_wait_s
        self._meter = meter
        self.rate = DrainRate()
        """At which tokens are answered."""

    def limit_tokens(self, one_batch: int) -> int:
        """Return the tokens beyond which nothing more may wait now.

        Args:
            one_batch: tokens that may always wait, for the rate seen under little load is less than what full batches
                reach.
        """
        return int(min(self._max_tokens, max(one_batch, self.rate.tokens_in(self._max_wait_s()))))

    def check_size(self, tokens: int) -> None:
        """Return if a request of ``tokens`` may ever wait.

        Raises:
            TooLarge: it alone is larger than the queue.
        """
        if tokens > self._max_tokens:
            raise TooLarge(
                f"The request has {tokens} tokens; at most {self._max_tokens} can wait. Send fewer texts.",
                tokens=tokens,
                limit_tokens=self._max_tokens,
            )

    def check(self, waiting: int, tokens: int, one_batch: int) -> None:
        """Return if a request of ``tokens`` may wait behind ``waiting`` ones.

        Raises:
            Overloaded: it may not; says when to come back.
        """
        # The wait is that of what stands before it, however large it is itself.
        limit = self.limit_tokens(one_batch)
        if waiting >= limit or waiting + tokens > self._max_tokens:
            self._meter.refused()
            raise Overloaded(
                f"The queue is full: {waiting} of {limit} tokens wait. Try again later.",
                retry_after_s=self.rate.seconds_for(waiting),
            )
