"""Whether there is room for one more request: how long it would wait, against how long it may."""

from collections.abc import Callable

from service.drain_rate import DrainRate
from service.errors import Overloaded, TooLarge
from service.load_meter import LoadMeter
from service.policy import Policy
from service.settings import Settings

WAIT_SHARE = 0.6
"""Share of a latency target that a request may wait. Its batch, and its way in and out, take the rest."""


def target_wait(policy: Policy) -> float | None:
    """Return the seconds that a request may wait by the policy's latency target; None without one."""
    return None if policy.slo_p99_ms is None else WAIT_SHARE * policy.slo_p99_ms / 1e3


def room_under(settings: Settings, policy: Callable[[], Policy], meter: LoadMeter) -> "Room":
    """Return the room of a replica's queue; the policy is asked for each request."""
    return Room(
        max_tokens=settings.max_queue_tokens,
        full_batch=settings.max_batch_tokens,
        max_wait_s=settings.max_queue_s,
        target_wait_s=lambda: target_wait(policy()),
        meter=meter,
    )


class Room:
    """Bounds what waits in tokens, and in seconds at the rate at which it was seen to be answered."""

    def __init__(
        self,
        *,
        max_tokens: int,
        full_batch: int,
        max_wait_s: float,
        target_wait_s: Callable[[], float | None],
        meter: LoadMeter,
    ) -> None:
        """Nothing is measured yet.

        Args:
            max_tokens: bound in tokens; what has left the queue for a batch no longer counts.
            full_batch: the most tokens of one batch.
            max_wait_s: bound in seconds.
            target_wait_s: a tighter one where there is a target, as of now.
            meter: told what is refused.
        """
        self._max_tokens = max_tokens
        self._full_batch = full_batch
        self._max_wait_s = max_wait_s
        self._target_wait_s = target_wait_s
        self._meter = meter
        self.rate = DrainRate()
        """At which tokens are answered."""

    def limit_tokens(self, quick_batch: int) -> int:
        """Return the tokens beyond which nothing more may wait now.

        A batch may always wait: the rate seen under little load, or while something else had the processor, is less
        than what full batches reach. Without a target that is a full one.

        Args:
            quick_batch: tokens of a batch that takes no longer than batches should.
        """
        target_s = self._target_wait_s()
        if target_s is None:
            always, wait_s = self._full_batch, self._max_wait_s
        else:
            always, wait_s = min(self._full_batch, quick_batch), min(self._max_wait_s, target_s)
        return int(min(self._max_tokens, max(always, self.rate.tokens_in(wait_s))))

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

    def check(self, waiting: int, tokens: int, quick_batch: int) -> None:
        """Return if a request of ``tokens`` may wait behind ``waiting`` ones.

        Raises:
            Overloaded: it may not; says when to come back.
        """
        # The wait is that of what stands before it, however large it is itself.
        limit = self.limit_tokens(quick_batch)
        if waiting >= limit or waiting + tokens > self._max_tokens:
            self._meter.refused()
            raise Overloaded(
                f"The queue is full: {waiting} of {limit} tokens wait. Try again later.",
                retry_after_s=self.rate.seconds_for(waiting),
            )
