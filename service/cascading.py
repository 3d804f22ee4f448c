"""Which requests a cascade answers: its level and threshold, by what the request asks for and what the policy says."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from pruning.cascade import AGREEMENTS, Cascade
from service.engine import Engine, Live
from service.errors import Invalid
from service.levels import CASCADE_HEADER, Wish
from service.policy import CascadeChoice, Policy

DEFAULT_AGREEMENT = 0.99
"""Calibrated agreement of a cascade that a request asks for, where the policy names none."""

Known = Mapping[str, Collection[Cascade]]
"""Calibrated cascades by their level's variant id."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How the texts of one request are answered: by ``level`` where it is sure, else by ``dense``."""

    cascade: Cascade
    level: Engine
    dense: Engine


def counted_under(rule: Rule | None, snapshot: Live) -> str:
    """Return the cascade or the variant whose an answer is, or the want of one."""
    return snapshot.engine.manifest.variant_id if rule is None else rule.cascade.cascade_id


def cascade_for(
    wish: Wish,
    level: Engine | None,
    resident: Iterable[Engine],
    policy: Policy,
    known: Known,
    *,
    usual_off: bool = False,
) -> Rule | None:
    """Return how a request is answered by a cascade; None if it is not.

    Args:
        wish: what the request asks for.
        level: the level that it was given by its sparsity; None where it named none.
        resident: the levels of the ladder that are loaded.
        policy: says whether requests that ask for nothing are answered by a cascade, and by which.
        known: calibrated cascades.
        usual_off: the policy's cascade is switched off: whoever would be answered by it without naming a level is
            answered as if there were none, those that ask for it by name too, for the guard's work must fail nobody.

    Raises:
        Invalid: the request asks for a cascade that there is not, or that is not loaded; names what there is.
    """
    usual, loaded = policy.cascade, list(resident)
    if wish.cascade is False or (wish.cascade is None and (usual is None or wish or level is not None)):
        return None
    if usual is not None and usual_off and level is None:
        return None
    if not policy.allows(0.0):
        raise Invalid(
            f"A cascade hands texts on to the dense model, which is outside the bounds of this service, "
            f"{policy.min_sparsity:g} to {policy.max_sparsity:g}."
        )
    if level is not None:
        sparsity, agreement = _sparsity(level), DEFAULT_AGREEMENT if usual is None else usual.agreement
        rule = _rule(level, agreement, loaded, known)
    elif usual is not None:
        sparsity, rule = usual.sparsity, _usual(usual, loaded, known)
    else:
        raise Invalid(
            'A cascade begins with a sparse level: name its sparsity, as in {"cascade": true, "sparsity": 0.7}; '
            f"{_offered(loaded, known, policy)}."
        )
    if rule is None and wish.cascade:
        raise Invalid(f"No cascade begins at sparsity {sparsity:g}; {_offered(loaded, known, policy)}.")
    return rule


def _usual(usual: CascadeChoice, loaded: list[Engine], known: Known) -> Rule | None:
    rules = (_rule(one, usual.agreement, loaded, known) for one in loaded if _sparsity(one) == usual.sparsity)
    return next((rule for rule in rules if rule is not None), None)


def _rule(level: Engine, agreement: float, loaded: list[Engine], known: Known) -> Rule | None:
    """Return the cascade of a level for an agreement, if it was calibrated and both its models are loaded."""
    engines = {engine.manifest.variant_id: engine for engine in loaded}
    if level.manifest.variant_id not in engines:
        return None
    for cascade in known.get(level.manifest.variant_id, ()):
        if cascade.target == agreement and cascade.dense_id in engines:
            return Rule(cascade, level, engines[cascade.dense_id])
    return None


def _offered(loaded: list[Engine], known: Known, policy: Policy) -> str:
    begin = [
        engine
        for engine in loaded
        if policy.admits(_sparsity(engine), engine.manifest.evaluation.accuracy)
        and any(_rule(engine, target, loaded, known) for target in AGREEMENTS)
    ]
    levels = sorted({_sparsity(engine) for engine in begin})
    if not levels:
        return f"no level that is loaded has one; leave {CASCADE_HEADER} out"
    return f"cascades begin at {', '.join(f'{level:g}' for level in levels)}"


def _sparsity(engine: Engine) -> float:
    return engine.manifest.spec.sparsity
