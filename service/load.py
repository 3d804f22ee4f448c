"""What a replica says of its load: counters since its start, and what waits at this moment."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A reading of one replica. Counters only grow, so that a report that is lost or sent twice does no harm."""

    at_s: float
    """When it was read, in seconds of the replica's own clock, which never goes back."""
    refused: int
    """Requests refused for want of room."""
    accepted: int
    """Requests that were let into the queue."""
    accepted_tokens: int
    """Their tokens."""
    answered_tokens: int
    """Tokens of the batches that are done."""
    busy_s: float
    """Seconds that the lanes were busy: those of a batch on one of n lanes count 1/n."""
    model_s: float
    """Processor seconds, over all cores, of everything but the event loop; on a GPU, seconds that it computed."""
    loop_s: float
    """Processor seconds of the event loop: HTTP, tokenization of short texts, ranking, JSON."""
    queue_tokens: int
    """Tokens that wait now."""
    queue_s: float
    """Seconds that these need at the rate at which the queue was seen to drain."""
    p99_s: float | None
    """99th percentile of the seconds from arrival to answer, over the answers of the last two seconds; None without
    any."""
    model_p99_s: float | None
    """The same of the time that these requests spent in the queue and in the model."""
