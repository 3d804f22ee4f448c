"""What is kept of every request, and its JSON Lines form.

Times are seconds on the run's own clock, so that replies and swaps share one axis.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

OK = 200
REFUSED = 429


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One request of a load: when it was due, when it was sent, and what came back."""

    index: int
    intended_s: float
    """When the arrival process wanted it sent."""
    sent_s: float
    """When a connection was free and the request was written."""
    done_s: float
    """When the whole answer, or the failure, was there."""
    status: int
    """HTTP status; 0 when there was no answer."""
    error: str | None
    """Name of the transport failure."""
    generation: int | None
    sparsity: float | None
    """As achieved, from ``x-sparsity``."""
    connection: int
    """Number of the TCP connection within the run; requests on one connection follow each other."""
    times_ms: dict[str, float] = field(default_factory=dict)
    """Milliseconds of each stage in the service, by the name of the header that told them."""
    retry_after: str | None = None
    """The header ``Retry-After``, as it came."""
    label: str | None = None
    """The best label of the answer's first text, where the pool was asked to read it."""

    @property
    def latency_s(self) -> float:
        """Seconds from the intended send time: waiting for a connection counts, so a stall cannot hide."""
        return self.done_s - self.intended_s

    @property
    def failed(self) -> bool:
        """True for anything but a 200."""
        return self.status != OK

    @property
    def refused(self) -> bool:
        """True where the service said that it has no room now."""
        return self.status == REFUSED


def write_replies(path: Path, replies: Iterable[Reply]) -> None:
    """Write one JSON object per line, ``latency_s`` included. Raises ``FileExistsError``: a result is never edited."""
    with path.open("x", encoding="utf-8") as lines:
        for reply in replies:
            record = {**asdict(reply), "latency_s": reply.latency_s}
            lines.write(json.dumps({key: _short(value) for key, value in record.items()}) + "\n")


def read_replies(path: Path) -> Iterator[Reply]:
    """Yield the replies of a file that ``write_replies`` wrote."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            del record["latency_s"]
            yield Reply(**record)


def _short(value: object) -> object:
    """Round floats to a microsecond: clocks are no better, and files stay small."""
    return round(value, 6) if isinstance(value, float) else value
