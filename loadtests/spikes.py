"""What a spike of load did to one service: figures over the spike, and its course second by second."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.histogram import LatencyHistogram
from loadtests.phases import Window
from loadtests.records import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """All replies of one contestant, which went through calm, spike and calm."""

    name: str
    replies: Sequence[Reply]
    spike: Window
    end_s: float
    """When the load ended; all times are seconds of the run's clock."""

    def within(self, start_s: float, end_s: float) -> list[Reply]:
        """Return the replies to requests that were due in a span."""
        return [reply for reply in self.replies if start_s <= reply.intended_s < end_s]

    @property
    def during(self) -> list[Reply]:
        """The replies to requests that were due in the spike."""
        return self.within(self.spike.start_s, self.spike.end_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a contestant made of the spike."""

    refused_share: float
    """Of the requests that were due in it."""
    in_time_per_s: float
    """Goodput: good answers within the target, by the second."""
    late_share: float
    """Of the good answers."""
    agreement: float
    """Share of the good answers with the label that dense gave for the same text before; NaN without any."""
    sparsity: float
    """Mean over the good answers."""
    first_sparser_s: float
    """Seconds from its beginning to the first answer by a level that is not dense; infinite without one."""
    back_on_dense_s: float
    """Seconds from its end until only dense answered; infinite if another level was among the last."""


def figures_of(course: Course, *, target_s: float, dense_labels: Sequence[str | None]) -> Figures:
    """Return the figures of a course.

    Args:
        course: with at least one request in its spike.
        target_s: latency within which an answer is in time.
        dense_labels: label that dense gives for each body, by its place in the order of sending.
    """
    during = course.during
    good = [reply for reply in during if not reply.failed]
    in_time = [reply for reply in good if reply.latency_s <= target_s]
    pairs = [(reply.label, dense_labels[reply.index % len(dense_labels)]) for reply in good]
    compared = [(label, dense) for label, dense in pairs if label is not None and dense is not None]
    return Figures(
        refused_share=sum(reply.refused for reply in during) / len(during),
        in_time_per_s=len(in_time) / (course.spike.end_s - course.spike.start_s),
        late_share=1 - len(in_time) / len(good) if good else math.nan,
        agreement=sum(label == dense for label, dense in compared) / len(compared) if compared else math.nan,
        sparsity=_mean_sparsity(good),
        first_sparser_s=min((reply.done_s for reply in during if reply.sparsity), default=math.inf)
        - course.spike.start_s,
        back_on_dense_s=_back_on_dense_s(course),
    )


def timeline(course: Course) -> list[dict[str, Any]]:
    """Return one row for each second of the course, counted from the beginning of the spike.

    Requests belong to the second in which they were due, sparsity is of the answers that came in it.
    """
    first_s = math.floor(min(reply.intended_s for reply in course.replies) - course.spike.start_s)
    rows = []
    for second in range(first_s, math.ceil(course.end_s - course.spike.start_s)):
        start_s = course.spike.start_s + second
        due = course.within(start_s, start_s + 1)
        came = [reply for reply in course.replies if start_s <= reply.done_s < start_s + 1 and not reply.failed]
        p99_s = LatencyHistogram(reply.latency_s for reply in due if not reply.failed).quantile(0.99)
        rows.append(
            {
                "second": second,
                "due": len(due),
                "refused": sum(reply.refused for reply in due),
                "p99_s": None if math.isnan(p99_s) else p99_s,
                "sparsity": _mean_sparsity(came) if came else None,
            }
        )
    return rows


def _mean_sparsity(good: Sequence[Reply]) -> float:
    told = [reply.sparsity for reply in good if reply.sparsity is not None]
    return sum(told) / len(told) if told else math.nan


def _back_on_dense_s(course: Course) -> float:
    good = [reply for reply in course.replies if not reply.failed and reply.done_s >= course.spike.end_s]
    sparse_s = max((reply.done_s for reply in good if reply.sparsity), default=course.spike.end_s)
    if not any(reply.done_s > sparse_s for reply in good):
        return math.inf
    return sparse_s - course.spike.end_s
