"""Whether load asks for a sparser level, and which: the densest that holds what comes, at once."""

from service.governor.capacity import WAITING_S
from service.governor.levels import Level
from service.governor.memory import HELPED, Memory
from service.governor.moves import Move, Reason, Stay, Why, milliseconds
from service.governor.observation import Observation

LATE_SHARE = 0.5
"""Share of the latency target that the queue may take: the rest is the batch's own time, and the next half second's."""
EARLY_SHARE = 0.2
"""The same where more comes than the level ever held."""
MARGIN = 0.85
"""Share of its capacity that a level should have to give."""
MODELS_PART = 0.7
"""Share of a late answer's time that queue and model must have taken for a sparser level to be of use."""
DRAIN_S = 2.0
"""Seconds in which what waits should be answered beside what comes."""
BUSY = 0.7
"""Share of the time that lanes must be busy for a sparser level to shorten any queue."""
GAIN = 1.15
"""A sparser level must promise to hold this much more."""
PATIENCE = 2
"""Ticks in a row that must ask for a sparser level; a refusal asks once."""


def pressure_of(memory: Memory, seen: Observation, slo_p99_s: float) -> Reason | None:
    """Return what asks for a sparser level, the gravest first; None if nothing does."""
    arrived, holds = seen.fast.arrived_per_s, memory.capacity.of(seen.level, seen)
    if seen.fast.refused_per_s > 0:
        return Reason(Why.REFUSALS, f"{seen.fast.refused_per_s:.0f} requests a second were refused for want of room")
    if seen.queue_s > LATE_SHARE * slo_p99_s:
        wait, target = milliseconds(seen.queue_s), milliseconds(slo_p99_s)
        return Reason(Why.QUEUE, f"what waits takes {wait} to answer, with a p99 target of {target}")
    if holds is not None and arrived > holds and seen.queue_s > max(WAITING_S, EARLY_SHARE * slo_p99_s):
        return Reason(Why.ARRIVALS, f"{arrived:.0f} tokens a second come, {seen.level.name} holds {holds:.0f}")
    if _model_is_late(seen, slo_p99_s) and not memory.settling(seen):
        return Reason(Why.LATENCY, _late_words(seen, slo_p99_s))
    return None


def late_elsewhere(seen: Observation, slo_p99_s: float) -> Reason | None:
    """Return why late answers are no reason for a sparser level, where ``pressure_of`` finds none; None if in time."""
    if seen.p99_s is None or seen.p99_s <= slo_p99_s:
        return None
    return Reason(Why.NOT_THE_MODEL, f"{_late_words(seen, slo_p99_s)}: a sparser level would not change that")


def _model_is_late(seen: Observation, slo_p99_s: float) -> bool:
    """Tell whether answers are late, most of that time in queue and model."""
    if seen.p99_s is None or seen.model_p99_s is None:
        return False
    return seen.p99_s > slo_p99_s and seen.model_p99_s > MODELS_PART * seen.p99_s


def _late_words(seen: Observation, slo_p99_s: float) -> str:
    p99, model, target = (milliseconds(seconds or 0.0) for seconds in (seen.p99_s, seen.model_p99_s, slo_p99_s))
    return f"p99 is {p99}, that of queue and model {model}, the target {target}"


def ascend(
    memory: Memory, seen: Observation, rungs: tuple[Level, ...], pressure: Reason, *, pressing: int
) -> Move | Stay:
    """Return the move that ``pressure`` asks for, or why there is none.

    Args:
        memory: with what this tick has shown.
        seen: the load; its level is one of ``rungs``.
        rungs: levels that may answer, densest first.
        pressure: what asks for a sparser level.
        pressing: for how many ticks in a row, this one included.
    """
    here = rungs.index(seen.level)
    if here == len(rungs) - 1:
        return Stay(Reason(Why.LIMIT, f"{pressure.words}; no level that may answer is sparser than {seen.level.name}"))
    if seen.fast.utilisation < BUSY:
        busy = f"{seen.fast.utilisation:.0%}"
        return _not_the_model(pressure, f"the lanes are busy {busy} of the time, so that the model is not what is late")
    gain = max(1 / memory.capacity.ratio(level, seen) for level in rungs[here + 1 :])
    if gain < GAIN:
        share = f"{seen.fast.model_share:.0%}"
        return _not_the_model(
            pressure, f"the model takes {share} of the processors' time, and no sparser level holds {GAIN - 1:.0%} more"
        )
    if pressing < PATIENCE and pressure.why is not Why.REFUSALS:
        return Stay(Reason(Why.WAITING, f"{pressure.words}; one more tick has to say so"))
    target = _that_holds(memory, seen, rungs)
    if rungs.index(target) > here:
        holds = memory.capacity.of(seen.level, seen)
        if memory.settling(seen) and (holds is None or seen.fast.arrived_per_s <= holds):
            return Stay(_settling(pressure, seen.level))
        return Move(target, True, _chosen(pressure, memory, seen, target))
    if memory.settling(seen):
        return Stay(_settling(pressure, seen.level))
    if not _may_go_further(memory, seen, pressure):
        return _not_the_model(pressure, "a sparser level than the load asks for did not mend that")
    words = f"{pressure.words}, though {seen.level.name} should hold what comes: one level sparser"
    return Move(rungs[here + 1], True, Reason(pressure.why, words), further=True)


def _may_go_further(memory: Memory, seen: Observation, pressure: Reason) -> bool:
    """Tell whether a level further may be tried: the first one, or another one for late answers that are less so."""
    tried_at_p99_s, p99_s = memory.tried_at_p99_s, seen.model_p99_s
    if tried_at_p99_s is None:
        return True
    return pressure.why is Why.LATENCY and p99_s is not None and p99_s <= HELPED * tried_at_p99_s


def _that_holds(memory: Memory, seen: Observation, rungs: tuple[Level, ...]) -> Level:
    """Return the densest level that answers what comes and what waits, with a margin; else the one that holds most."""
    needed = seen.fast.arrived_per_s + seen.queue_tokens / DRAIN_S
    holds = {level: memory.capacity.of(level, seen) or 0.0 for level in rungs}
    enough = (level for level in rungs if MARGIN * holds[level] >= needed)
    return next(enough, max(rungs, key=lambda level: holds[level]))


def _chosen(pressure: Reason, memory: Memory, seen: Observation, target: Level) -> Reason:
    holds = memory.capacity.of(target, seen) or 0.0
    return Reason(
        pressure.why,
        f"{pressure.words}; {seen.fast.arrived_per_s:.0f} tokens a second come and {seen.queue_tokens} wait, "
        f"{target.name} holds {holds:.0f} a second",
    )


def _settling(pressure: Reason, level: Level) -> Reason:
    return Reason(Why.WAITING, f"{pressure.words}; {level.name} answers for a moment only and should hold what comes")


def _not_the_model(pressure: Reason, because: str) -> Stay:
    return Stay(Reason(Why.NOT_THE_MODEL, f"{pressure.words}, but {because}"))
