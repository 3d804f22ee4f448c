"""What a replica counted of one variant since it started: values that travel with its reports and add up."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Self

from pruning.metrics import wilson_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Texts that both a variant and the dense model answered, of one slice of the traffic."""

    label: str
    """What the variant answered."""
    length: str
    """Bucket of their tokens, such as ``17-32``."""
    texts: int
    agreed: int
    """Of them, those that got the same label from both."""
    kl_sum: float
    """Sum of KL(dense || variant) over the texts, in nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Counts of one variant. All but ``right`` only grow while the replica lives: a true label may be corrected."""

    variant_id: str
    begun: int = 0
    """Requests that were handed to it, whatever became of them."""
    answered: int = 0
    """Requests answered by it."""
    failed: int = 0
    """Requests that it could not answer."""
    timed_out: int = 0
    """Requests whose time was up before it had answered."""
    durations: tuple[int, ...] = ()
    """Requests answered, by bucket of their total time; see ``service.metrics.SECONDS_BUCKETS``, the last is beyond."""
    compared: tuple[Compared, ...] = ()
    labelled: int = 0
    """Texts whose true label was posted back."""
    right: int = 0
    """Of them, those that it had labelled so."""

    @property
    def texts(self) -> int:
        """Texts compared with the dense model."""
        return sum(one.texts for one in self.compared)

    @property
    def agreed(self) -> int:
        """Of them, those with the same label."""
        return sum(one.agreed for one in self.compared)

    @property
    def agreement(self) -> float | None:
        """Their share; None where nothing was compared."""
        return self.agreed / self.texts if self.texts else None

    @property
    def agreement_interval(self) -> tuple[float, float]:
        """Its 95 % Wilson score interval."""
        return wilson_interval(self.agreed, self.texts)

    @property
    def kl(self) -> float | None:
        """Mean KL(dense || variant) in nats; None where nothing was compared."""
        return sum(one.kl_sum for one in self.compared) / self.texts if self.texts else None

    def __add__(self, other: Self) -> Self:
        """Return both together; they must be of one variant."""
        return self._joined(other, 1)

    def __sub__(self, other: Self) -> Self:
        """Return what came since ``other``, an earlier reading of the same replicas."""
        return self._joined(other, -1)

    def _joined(self, other: Self, sign: int) -> Self:
        if self.variant_id != other.variant_id:
            raise ValueError(f"counts of {self.variant_id} and of {other.variant_id} do not add up")
        pairs = zip_longest(self.durations, other.durations, fillvalue=0)
        return type(self)(
            variant_id=self.variant_id,
            begun=self.begun + sign * other.begun,
            answered=self.answered + sign * other.answered,
            failed=self.failed + sign * other.failed,
            timed_out=self.timed_out + sign * other.timed_out,
            durations=tuple(mine + sign * theirs for mine, theirs in pairs),
            compared=_joined_slices(self.compared, other.compared, sign),
            labelled=self.labelled + sign * other.labelled,
            right=self.right + sign * other.right,
        )


def _joined_slices(mine: Iterable[Compared], theirs: Iterable[Compared], sign: int) -> tuple[Compared, ...]:
    slices = {(one.label, one.length): one for one in mine}
    for one in theirs:
        known = slices.get((one.label, one.length)) or Compared(
            label=one.label, length=one.length, texts=0, agreed=0, kl_sum=0.0
        )
        slices[one.label, one.length] = Compared(
            label=one.label,
            length=one.length,
            texts=known.texts + sign * one.texts,
            agreed=known.agreed + sign * one.agreed,
            kl_sum=known.kl_sum + sign * one.kl_sum,
        )
    return tuple(slices[name] for name in sorted(slices))
