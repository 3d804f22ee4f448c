"""What a replica counts of each variant while it answers."""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from service.metrics import SECONDS_BUCKETS
from service.tally import Compared, Tally

KEPT = 64
"""Variants that are remembered; of more, the one that answered least recently is forgotten."""


@dataclass(slots=True)
class _Page:
    begun: int = 0
    answered: int = 0
    failed: int = 0
    timed_out: int = 0
    durations: list[int] = field(default_factory=lambda: [0] * (len(SECONDS_BUCKETS) + 1))
    compared: dict[tuple[str, str], Compared] = field(default_factory=dict)
    labelled: int = 0
    right: int = 0


class TallyBook:
    """Counts by variant, since the replica started."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._pages: OrderedDict[str, _Page] = OrderedDict()

    def begun(self, variant_id: str) -> None:
        """Count a request that is handed to the variant."""
        self._page(variant_id).begun += 1

    def answered(self, variant_id: str, seconds: float) -> None:
        """Count a request that was answered in so many seconds."""
        page = self._page(variant_id)
        page.answered += 1
        page.durations[bisect_left(SECONDS_BUCKETS, seconds)] += 1

    def failed(self, variant_id: str) -> None:
        """Count a request that the variant could not answer."""
        self._page(variant_id).failed += 1

    def timed_out(self, variant_id: str) -> None:
        """Count a request whose time was up before the variant had answered."""
        self._page(variant_id).timed_out += 1

    def compared(self, variant_id: str, slices: Iterable[Compared]) -> None:
        """Count texts that the dense model answered as well."""
        known = self._page(variant_id).compared
        for one in (Tally(variant_id=variant_id, compared=tuple(known.values())) + _tally(variant_id, slices)).compared:
            known[one.label, one.length] = one

    def labelled(self, variant_id: str, texts: int, right: int) -> None:
        """Count texts whose true label is known; negative numbers take back what was counted before."""
        page = self._page(variant_id)
        page.labelled += texts
        page.right += right

    def read(self) -> tuple[Tally, ...]:
        """Return the counts of every variant that is remembered."""
        return tuple(
            Tally(
                variant_id=variant_id,
                begun=page.begun,
                answered=page.answered,
                failed=page.failed,
                timed_out=page.timed_out,
                durations=tuple(page.durations),
                compared=tuple(page.compared[name] for name in sorted(page.compared)),
                labelled=page.labelled,
                right=page.right,
            )
            for variant_id, page in self._pages.items()
        )

    def _page(self, variant_id: str) -> _Page:
        page = self._pages.setdefault(variant_id, _Page())
        self._pages.move_to_end(variant_id)
        if len(self._pages) > KEPT:
            self._pages.popitem(last=False)
        return page


def _tally(variant_id: str, slices: Iterable[Compared]) -> Tally:
    return Tally(variant_id=variant_id, compared=tuple(slices))
