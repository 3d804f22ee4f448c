"""Which variant answered which request with which labels, for as long as the truth may still come.

Bounded in number and in time; asked with the same truth twice, it counts once.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.errors import Invalid, NotFound
from service.problems import shown
from service.tally_book import TallyBook

KEPT = 20_000
"""Requests that are remembered; of more, the oldest are forgotten."""
EXPIRY_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the truth says of one answer."""

    variant_id: str
    texts: int
    right: int
    """Texts that were labelled so."""


@dataclass(slots=True)
class _Answer:
    variant_id: str
    labels: tuple[str, ...]
    at: float
    truth: tuple[str, ...] | None = None

    @property
    def right(self) -> int:
        if self.truth is None:
            return 0
        return sum(mine == true for mine, true in zip(self.labels, self.truth, strict=True))


class AnswerMemory:
    """The answers of one replica."""

    def __init__(self, book: TallyBook, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Remember nothing yet; ``book`` counts by variant what was right."""
        self._book = book
        self._monotonic = monotonic
        self._answers: OrderedDict[str, _Answer] = OrderedDict()

    def remember(self, request_id: str, variant_id: str, labels: Sequence[str]) -> None:
        """Take note of an answer. An id that was used before stands for its last answer."""
        self._answers[request_id] = _Answer(variant_id, tuple(labels), self._monotonic())
        self._answers.move_to_end(request_id)
        if len(self._answers) > KEPT:
            self._answers.popitem(last=False)

    def judge(self, request_id: str, truth: Sequence[str]) -> Judged:
        """Count the true labels of a request, one for each text, in place of those that came for it before.

        Raises:
            NotFound: this replica did not answer such a request, or not within the last hour.
            Invalid: there were more texts, or fewer.
        """
        answer = self._answers.get(request_id)
        if answer is None or self._monotonic() - answer.at > EXPIRY_S:
            self._answers.pop(request_id, None)
            raise NotFound(
                f"No answer to a request {shown(request_id)} is remembered; the last {KEPT} of a replica are, for "
                f"{EXPIRY_S / 60:g} minutes."
            )
        if len(truth) != len(answer.labels):
            raise Invalid(f"The request had {len(answer.labels)} texts; got {len(truth)} labels.")
        texts, right = (len(answer.labels), answer.right) if answer.truth is not None else (0, 0)
        answer.truth = tuple(truth)
        self._book.labelled(answer.variant_id, len(answer.labels) - texts, answer.right - right)
        return Judged(variant_id=answer.variant_id, texts=len(answer.labels), right=answer.right)
