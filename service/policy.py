"""What an operator lets the service do by itself: the members of ``PUT /admin/policy``, checked.

Bounds of sparsity hold for what the service chooses, alone or for a request that names a level; an operator's own
change is held by the accuracy floor alone.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, Self

from pruning.cascade import AGREEMENTS
from pruning.files import digest_of
from service.errors import Invalid
from service.operations import Canary
from service.problems import shown


class Mode(StrEnum):
    """Who turns the dial."""

    MANUAL = "manual"
    """The operator."""
    AUTO = "auto"
    """The governor, within the bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeChoice:
    """A cascade by its level and by the agreement with the dense model that it was calibrated for."""

    sparsity: float
    agreement: float

    def __post_init__(self) -> None:
        """Refuse what no cascade can be calibrated for."""
        if not _is_number(self.sparsity) or not 0.0 < self.sparsity < 1.0:
            raise Invalid(f"the cascade's sparsity must be a number in (0, 1); got {shown(self.sparsity)}.")
        if not _is_number(self.agreement) or self.agreement not in AGREEMENTS:
            known = ", ".join(f"{one:g}" for one in AGREEMENTS)
            raise Invalid(f"the cascade's agreement must be one of {known}; got {shown(self.agreement)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy. A value that cannot be valid, or contradicts another, cannot be built.

    Raises:
        Invalid: names the member, its value and its range.
    """

    accuracy_floor: float
    """Accuracy on the evaluation rows below which nothing is promoted, in [0, 1]."""
    mode: Mode = Mode.MANUAL
    slo_p99_ms: float | None = None
    """Milliseconds within which 99 of 100 requests shall be answered; wanted by ``auto``."""
    min_sparsity: float = 0.0
    """No denser level is chosen by the governor or by a request."""
    max_sparsity: float = 1.0
    """No sparser one."""
    agreement_floor: float | None = None
    """Agreement with the dense model on live traffic below which a variant is turned back. ``None`` means 0.05 below
    the lower end of the interval on the evaluation rows."""
    false_alarm_rate: float = 0.01
    """Chance that a variant which holds its agreement floor is ever turned back by one test of it. Its trial is one;
    another one begins whenever an operator commits it."""
    shadow_fraction: float = 0.02
    """Share of live requests that the dense model answers as well, where there is time. Of a variant on trial it is
    all of them, unless this is 0."""
    canary_fraction: float = 0.0
    """Share of requests that a new variant answers before it is committed; 0 commits it at once."""
    canary_s: float = 10.0
    """Seconds for which it does, at most."""
    canary_texts: int = 200
    """Texts compared with the dense model that end the trial sooner."""
    cascade: CascadeChoice | None = None
    """Answers requests that ask for no level; ``None`` leaves them to the live variant alone."""

    def __post_init__(self) -> None:
        """Check every member, then those that belong together."""
        object.__setattr__(self, "mode", _mode(self.mode))
        for name in ("accuracy_floor", "min_sparsity", "max_sparsity", "shadow_fraction", "canary_fraction"):
            self._check_number(name, low=0.0, high=1.0)
        if self.agreement_floor is not None:
            self._check_number("agreement_floor", low=0.0, high=1.0)
        if self.slo_p99_ms is not None:
            self._check_number("slo_p99_ms", low=0.0, high=math.inf, open_ends=True)
        self._check_number("false_alarm_rate", low=0.0, high=1.0, open_ends=True)
        self._check_number("canary_s", low=0.0, high=math.inf, open_ends=True)
        if isinstance(self.canary_texts, bool) or not isinstance(self.canary_texts, int) or self.canary_texts < 1:
            raise Invalid(f"canary_texts must be a whole number of at least 1; got {shown(self.canary_texts)}.")
        object.__setattr__(self, "cascade", _cascade(self.cascade))
        if self.min_sparsity > self.max_sparsity:
            raise Invalid(
                f"min_sparsity {self.min_sparsity:g} is above max_sparsity {self.max_sparsity:g}; lower the one or "
                "raise the other."
            )
        if self.mode is Mode.AUTO and self.slo_p99_ms is None:
            raise Invalid("mode 'auto' needs slo_p99_ms, the milliseconds that it is to hold; set both at once.")
        if self.cascade is not None:
            self._check_cascade(self.cascade)

    def changed(self, members: Any) -> Self:
        """Return this policy with some members of a JSON object in place of its own.

        Raises:
            Invalid: not an object, an unknown member, or as the class says.
        """
        if not isinstance(members, Mapping):
            raise Invalid(f'The body must be an object such as {{"shadow_fraction": 0.05}}; got {shown(members)}.')
        unknown = sorted(str(name) for name in members if name not in MEMBERS)
        if unknown:
            raise Invalid(f"unknown in a policy: {shown(', '.join(unknown))}; known: {', '.join(MEMBERS)}.")
        return replace(self, **members)

    def as_dict(self) -> dict[str, Any]:
        """Return the plain values that JSON holds."""
        return asdict(self) | {"mode": self.mode.value}

    @property
    def etag(self) -> str:
        """Return what an ``If-Match`` names this policy by."""
        return digest_of(self.as_dict())[:16]

    def canary(self, fraction: float | None = None) -> Canary | None:
        """Return how a change is tried, on ``fraction`` of the requests or on the policy's; None commits it at once."""
        share = self.canary_fraction if fraction is None else fraction
        return Canary(fraction=share, seconds=self.canary_s) if share > 0.0 else None

    def allows(self, sparsity: float) -> bool:
        """Tell whether a level of this sparsity lies within the bounds."""
        return self.min_sparsity <= sparsity <= self.max_sparsity

    def admits(self, sparsity: float, accuracy: float) -> bool:
        """Tell whether a level lies within the bounds and above the floor."""
        return self.allows(sparsity) and accuracy >= self.accuracy_floor

    def _check_cascade(self, cascade: CascadeChoice) -> None:
        if self.mode is Mode.AUTO:
            raise Invalid("mode 'auto' moves the level that answers, and a cascade holds it; set cascade to null.")
        if not self.allows(0.0):
            raise Invalid(
                f"a cascade hands texts on to the dense model, which min_sparsity {self.min_sparsity:g} forbids; set "
                "cascade to null, or min_sparsity to 0."
            )
        if not self.allows(cascade.sparsity):
            raise Invalid(
                f"the cascade's sparsity {cascade.sparsity:g} is outside the bounds, {self.min_sparsity:g} to "
                f"{self.max_sparsity:g}; move the one or the other."
            )

    def _check_number(self, name: str, *, low: float, high: float, open_ends: bool = False) -> None:
        value = getattr(self, name)
        if not _is_number(value) or not (low < value < high if open_ends else low <= value <= high):
            left, right = "()" if open_ends else "[]"
            raise Invalid(f"{name} must be a number in {left}{low:g}, {high:g}{right}; got {shown(value)}.")
        object.__setattr__(self, name, float(value))


MEMBERS = tuple(field.name for field in fields(Policy))


def _is_number(value: object) -> bool:
    """Tell whether it is a finite number; JSON has whole numbers beyond what a float holds."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _cascade(value: Any) -> CascadeChoice | None:
    if value is None or isinstance(value, CascadeChoice):
        return value
    names = {field.name for field in fields(CascadeChoice)}
    if not isinstance(value, Mapping) or set(value) != names:
        raise Invalid(f'cascade must be null or {{"sparsity": 0.7, "agreement": 0.99}}; got {shown(value)}.')
    return CascadeChoice(**value)


def _mode(value: object) -> Mode:
    try:
        return Mode(str(value))
    except ValueError:
        raise Invalid(f"unknown mode {shown(value)}; known: {', '.join(Mode)}.") from None
