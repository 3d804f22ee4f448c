"""What to do at one tick: look, then go sparser, denser, or stay, and say why."""

from dataclasses import replace

from service.governor.ascent import ascend, late_elsewhere, pressure_of
from service.governor.descent import descend
from service.governor.levels import Bounds, Level
from service.governor.memory import TICK_S, Memory
from service.governor.moves import Move, Reason, Stay, Why
from service.governor.observation import Observation

RETRY_S = 5.0
"""Seconds after which a move that came to nothing is asked for again."""


def decide(memory: Memory, seen: Observation, bounds: Bounds) -> tuple[Memory, Move | Stay]:
    """Return what to remember, and what to do now, to be asked about every ``TICK_S``.

    A move is always to a level of ``bounds.rungs()``. The one that answers is left for one of them at once if it is
    none itself; else for a sparser one within two ticks of the load that it does not hold, and for a denser one once
    that would have held for some seconds.
    """
    elapsed_s = TICK_S if memory.last_s is None else seen.now_s - memory.last_s
    memory = memory.after(seen)
    if seen.changing:
        return memory, Stay(Reason(Why.WAITING, "a change is under way"))
    rungs = bounds.rungs()
    if not rungs:
        return memory, Stay(Reason(Why.LIMIT, "no loaded level is within the bounds and above the floor"))
    if seen.level not in rungs:
        return _asked(memory, seen, _enter(seen.level, rungs))
    pressure = pressure_of(memory, seen, bounds.slo_p99_s)
    if pressure is not None:
        memory = memory.pressed(seen)
        return _asked(memory, seen, ascend(memory, seen, rungs, pressure, pressing=memory.pressing))
    calm_s, decision = descend(memory, seen, rungs, bounds.slo_p99_s, elapsed_s=elapsed_s)
    if isinstance(decision, Stay) and (reason := late_elsewhere(seen, bounds.slo_p99_s)):
        decision = Stay(reason)
    return _asked(replace(memory, pressing=0, calm_s=calm_s), seen, decision)


def _enter(level: Level, rungs: tuple[Level, ...]) -> Move:
    """Return the move from a level that may not answer to the nearest that may, the sparser of two."""
    target = next((rung for rung in rungs if rung.sparsity >= level.sparsity), rungs[-1])
    words = f"{level.name} is no level that the policy lets answer; {target.name} is the nearest"
    return Move(target, target.sparsity > level.sparsity, Reason(Why.BOUNDS, words))


def _asked(memory: Memory, seen: Observation, decision: Move | Stay) -> tuple[Memory, Move | Stay]:
    """Remember a move, unless the same one came to nothing a moment ago."""
    if isinstance(decision, Stay):
        return memory, decision
    if memory.asked is not None and memory.asked[0] == decision.level.variant_id != seen.level.variant_id:
        left_s = memory.asked[1] + RETRY_S - seen.now_s
        if left_s > 0:
            words = f"{decision.level.name} was asked for and does not answer; once more in {left_s:.1f} s"
            return memory, Stay(Reason(Why.WAITING, words))
    return memory.moved(seen, decision), decision
