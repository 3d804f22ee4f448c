"""Which loaded level answers a request that asks for one: by sparsity, or by quality, within the policy's bounds."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from service.engine import Engine, Live
from service.errors import Invalid
from service.floor import below_floor
from service.policy import Policy
from service.problems import shown

SPARSITY_HEADER, QUALITY_HEADER, CASCADE_HEADER = "x-sparsity", "x-quality", "x-cascade"
NEAR = 0.02
"""How far the achieved sparsity of a level may lie from what a request asks for."""


class Quality(StrEnum):
    """A level by what it is for, for callers who know no sparsities."""

    HIGH = "high"
    """The densest level within the bounds."""
    NORMAL = "normal"
    """What answers by default."""
    LOW = "low"
    """The sparsest level within the bounds and above the accuracy floor that the guard has not turned back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a request asks of the dial; nothing, if all are ``None``.

    Raises:
        Invalid: both a sparsity and a quality, or a cascade and a quality.
    """

    sparsity: float | None = None
    quality: Quality | None = None
    cascade: bool | None = None
    """Whether the dense model shall answer what the level is not sure of; ``None`` leaves it to the policy."""

    def __post_init__(self) -> None:
        """Refuse two wishes at once."""
        if self.sparsity is not None and self.quality is not None:
            raise Invalid("Ask for a sparsity or for a quality, not for both.")
        if self.cascade and self.quality is not None:
            raise Invalid("A cascade begins with a level: name its sparsity, not a quality.")

    def __bool__(self) -> bool:
        """Tell whether another level than the default one is asked for."""
        return self.sparsity is not None or self.quality not in (None, Quality.NORMAL)


def wish_of(headers: Mapping[str, str], wish: Wish) -> Wish:
    """Return what a request asks for by its headers, or by its body, ``wish``, if they say nothing.

    Raises:
        Invalid: a header that is no sparsity or quality, or headers and a body that both ask.
    """
    sparsity, quality, cascade = (headers.get(name) for name in (SPARSITY_HEADER, QUALITY_HEADER, CASCADE_HEADER))
    if sparsity is None and quality is None and cascade is None:
        return wish
    if wish != Wish():
        raise Invalid("Ask for a level in the headers or in the body, not in both.")
    if quality is not None and quality not in list(Quality):
        raise Invalid(f"{QUALITY_HEADER} must be one of {', '.join(Quality)}; got {shown(quality)}.")
    if cascade not in (None, "true", "false"):
        raise Invalid(f"{CASCADE_HEADER} must be true or false; got {shown(cascade)}.")
    return Wish(
        sparsity=_number(sparsity),
        quality=None if quality is None else Quality(quality),
        cascade=None if cascade is None else cascade == "true",
    )


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0.0 <= number < 1.0:
        raise Invalid(f"{SPARSITY_HEADER} must be a number in [0, 1); got {shown(text)}.")
    return number


def chosen(
    wish: Wish, live: Live, resident: Iterable[Engine], policy: Policy, distrusted: Collection[str] = ()
) -> Engine | None:
    """Return the level that a request runs on; None for whatever is live when its batch forms.

    Of levels of equal sparsity the one in the live variant's precision is taken, unless the guard turned it back.

    Args:
        wish: what the request asks for.
        live: what answers by default.
        resident: the levels of the ladder that are loaded.
        policy: bounds and floor.
        distrusted: variants that the guard turned back, and that no operator has committed since.

    Raises:
        Invalid: out of bounds, below the floor, turned back, or no level near; names bounds and levels.
    """
    if not wish:
        return None
    levels = [live.engine, *resident]
    offered = [
        engine
        for engine in levels
        if policy.admits(_sparsity(engine), engine.manifest.evaluation.accuracy)
        and engine.manifest.variant_id not in distrusted
    ]
    if wish.sparsity is not None:
        near = _near(wish.sparsity, levels, offered, policy)
        trusted = [engine for engine in near if engine.manifest.variant_id not in distrusted]
        if not trusted:
            raise Invalid(
                f"sparsity {wish.sparsity:g} was turned back: it did not agree with the dense model on live traffic; "
                f"ask for one of {_listed(offered)}, or have an operator commit it anew."
            )
        return _nearest(wish.sparsity, trusted, live, policy)
    if not offered:
        raise Invalid(f"No trusted level that is loaded lies within {_bounds(policy)} and above the accuracy floor.")
    sparsity = (min if wish.quality is Quality.HIGH else max)(_sparsity(engine) for engine in offered)
    return _of_usual_precision([engine for engine in offered if _sparsity(engine) == sparsity], live)


def _near(sparsity: float, levels: list[Engine], offered: list[Engine], policy: Policy) -> list[Engine]:
    if not policy.allows(sparsity):
        raise Invalid(f"sparsity {sparsity:g} is outside the bounds of this service, {_bounds(policy)}.")
    near = [one for one in levels if abs(one.manifest.achieved_sparsity - sparsity) <= NEAR]
    if not near:
        raise Invalid(f"No level near sparsity {sparsity:g} is loaded; ask for one of {_listed(offered)}.")
    return near


def _nearest(sparsity: float, near: list[Engine], live: Live, policy: Policy) -> Engine:
    distance = min(abs(_sparsity(one) - sparsity) for one in near)
    engine = _of_usual_precision([one for one in near if abs(_sparsity(one) - sparsity) == distance], live)
    accuracy = engine.manifest.evaluation.accuracy
    if accuracy < policy.accuracy_floor:
        raise Invalid(f"sparsity {sparsity:g}: {below_floor(accuracy, policy.accuracy_floor)}; ask for a lower one.")
    return engine


def _of_usual_precision(levels: list[Engine], live: Live) -> Engine:
    usual = live.engine.manifest.spec.precision
    return next((one for one in levels if one.manifest.spec.precision is usual), levels[0])


def _listed(levels: list[Engine]) -> str:
    return ", ".join(f"{number:g}" for number in sorted({_sparsity(one) for one in levels})) or "none"


def _sparsity(engine: Engine) -> float:
    return engine.manifest.spec.sparsity


def _bounds(policy: Policy) -> str:
    return f"{policy.min_sparsity:g} to {policy.max_sparsity:g}"
