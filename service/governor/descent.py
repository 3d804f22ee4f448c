"""Whether load allows a denser level, and which: half of the way to what should hold it, once it did so for seconds."""

import math

from service.governor.capacity import cost_ratio
from service.governor.levels import Level
from service.governor.memory import Memory
from service.governor.moves import Move, Reason, Stay, Why, milliseconds
from service.governor.observation import Observation

ROOM = 0.7
"""Share of its capacity that a denser level may have to give; short of ``ascent.MARGIN``, so that it is not left again
for the load that let it come."""
IDLE = 0.4
"""Below this share a late answer is not load's doing, and keeps no denser level away."""
LATE = 0.9
"""Share of the latency target that the 99th percentile predicted for a denser level may reach."""
UNKNOWN_PATIENCE = 4
"""How much longer calm must last where nobody knows what a denser level holds."""


def room_at(level: Level, memory: Memory, seen: Observation) -> float:
    """Return the share of the capacity of ``level`` that the load of the last seconds would take.

    Two estimates, the lower counts: from the tokens that come, where it is known what the level holds; and from the
    time that the lanes are busy, which is too high where batches are small and would be fuller at a denser level.
    """
    busy = seen.slow.utilisation * cost_ratio(seen.level, level, seen.slow.model_share)
    holds = memory.capacity.of(level, seen)
    return busy if holds is None else min(busy, seen.slow.arrived_per_s / holds)


def descend(
    memory: Memory, seen: Observation, rungs: tuple[Level, ...], slo_p99_s: float, *, elapsed_s: float
) -> tuple[float, Move | Stay]:
    """Return the seconds of calm so far, and the move that they allow, or why there is none.

    Args:
        memory: with what this tick has shown.
        seen: the load, which asks for no sparser level; its level is one of ``rungs``.
        rungs: levels that may answer, densest first.
        slo_p99_s: the latency target.
        elapsed_s: since the tick before.
    """
    here = rungs.index(seen.level)
    if here == 0:
        return 0.0, Stay(Reason(Why.STEADY, f"{seen.level.name} is the densest level that may answer"))
    next_one = rungs[here - 1]
    known = _has_room(next_one, memory, seen, slo_p99_s)
    unknown = memory.capacity.of(next_one, seen) is None and _fast_enough(next_one, seen, slo_p99_s)
    if not known and not unknown:
        calm_s = max(0.0, memory.calm_s - elapsed_s)
        return calm_s, Stay(Reason(Why.STEADY, _full(next_one, memory, seen, slo_p99_s)))
    calm_s = memory.calm_s + elapsed_s
    if calm_s < memory.wait_s * (1 if known else UNKNOWN_PATIENCE):
        return calm_s, Stay(Reason(Why.WAITING, f"{next_one.name} would have done for {calm_s:.1f} s"))
    if not known:
        return calm_s, Move(next_one, False, Reason(Why.CALM, f"calm for {calm_s:.0f} s: trying {next_one.name}"))
    nearer = rungs[here - math.ceil(here / 2) : here]
    target = next(level for level in nearer if _has_room(level, memory, seen, slo_p99_s))
    words = f"calm for {calm_s:.0f} s: {target.name} would be {room_at(target, memory, seen):.0%} full"
    return calm_s, Move(target, False, Reason(Why.CALM, words))


def _has_room(level: Level, memory: Memory, seen: Observation, slo_p99_s: float) -> bool:
    room = room_at(level, memory, seen)
    return room <= IDLE or (room <= ROOM and _fast_enough(level, seen, slo_p99_s))


def _fast_enough(level: Level, seen: Observation, slo_p99_s: float) -> bool:
    p99_s = _p99_at(level, seen)
    return p99_s is None or p99_s <= LATE * slo_p99_s


def _p99_at(level: Level, seen: Observation) -> float | None:
    """Return the 99th percentile if queue and model took longer as a batch does; None without answers."""
    if seen.p99_s is None or seen.model_p99_s is None:
        return None
    return seen.p99_s + seen.model_p99_s * (cost_ratio(seen.level, level, seen.slow.model_share) - 1)


def _full(level: Level, memory: Memory, seen: Observation, slo_p99_s: float) -> str:
    """Return why ``level`` does not answer."""
    room = room_at(level, memory, seen)
    if room > ROOM:
        return f"{level.name} would be {room:.0%} full"
    p99_s = _p99_at(level, seen) or 0.0
    return f"p99 would be about {milliseconds(p99_s)} at {level.name}, with a target of {milliseconds(slo_p99_s)}"
