"""What a replica holds loaded whatever answers: the ladder, and the variant before the one that answers."""

import logging

from service.protocol import Desired, EngineHolder

logger = logging.getLogger(__name__)


class Keeping:
    """Brings what a holder keeps resident to what is wanted, one variant at a time."""

    def __init__(self, holder: EngineHolder, replica_id: str) -> None:
        """Keep nothing yet; ``replica_id`` is for the log."""
        self._holder = holder
        self._replica_id = replica_id
        self._kept: tuple[str, ...] = ()
        self._unkeepable: set[str] = set()

    @property
    def kept(self) -> tuple[str, ...]:
        """The variants that the holder keeps resident."""
        return self._kept

    def try_all_again(self) -> None:
        """Forget which variants could not be loaded."""
        self._unkeepable.clear()

    async def step(self, desired: Desired) -> bool:
        """Load one more of what is wanted, and let go of what is not; tell whether there was anything to do."""
        variant_ids = self._next(desired)
        if variant_ids == self._kept:
            return False
        try:
            await self._holder.keep_resident(variant_ids)
        except Exception:
            self._unkeepable |= set(variant_ids) - set(self._kept)
            variant_ids = tuple(one for one in variant_ids if one in self._kept)
            logger.exception("replica=%s: not every variant of the ladder can be kept loaded", self._replica_id)
        self._kept = variant_ids
        return True

    def _next(self, desired: Desired) -> tuple[str, ...]:
        """Return what to keep resident next: what is wanted of what is kept, and one more that is wanted.

        The variant that answers is among them, so that it is still there once it has become the previous one.
        """
        wished = (desired.variant_id, desired.previous_variant_id, *desired.resident)
        wanted = [variant_id for variant_id in dict.fromkeys(wished) if variant_id is not None]
        missing = [one for one in wanted if one not in self._kept and one not in self._unkeepable]
        return tuple(one for one in wanted if one in self._kept or one in missing[:1])
