"""What the governor keeps in mind from one tick to the next."""

from dataclasses import dataclass, field, replace

from service.governor.capacity import Capacity
from service.governor.levels import Level
from service.governor.moves import Move
from service.governor.observation import FAST_S, Observation

TICK_S = 0.25
"""How often the governor should be asked."""
WAIT_S, LONGEST_WAIT_S = 5.0, 20.0
"""Seconds of calm before a denser level is tried; they double with every one that had to be taken back."""
PROOF_S = 10.0
"""A denser level that has answered for this long is no mistake."""
HELPED = 0.9
"""A level further than the load asks for, taken for late answers, must bring their time in queue and model below this
share of what it was before another one is tried."""
QUIET_S = 20.0
"""Seconds without anything that asks for a sparser level, after which one more is tried whatever the last one did."""
SETTLE_S = 2.5
"""Seconds until what is seen is of the new level alone: those of the 99th percentile, and of one tick more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """All that the next decision depends on, beside what is seen and what is allowed."""

    capacity: Capacity = field(default_factory=Capacity)
    level: Level | None = None
    """What answered at the last tick."""
    since_s: float = 0.0
    """When it began to answer, as far as was seen."""
    last_s: float | None = None
    """When the last tick was."""
    pressing: int = 0
    """Ticks in a row that asked for a sparser level."""
    calm_s: float = 0.0
    """Seconds for which a denser level would have been enough; other seconds are taken off again."""
    wait_s: float = WAIT_S
    """What ``calm_s`` has to reach."""
    descended_s: float | None = None
    """When the last move to a denser level was that is not proven; None without one."""
    pressed_s: float = 0.0
    """When something last asked for a sparser level."""
    tried_at_p99_s: float | None = None
    """99th percentile of the time in queue and model when a level further than the load asked for was last tried; None
    if one may be tried whatever that did."""
    asked: tuple[str, float] | None = None
    """The variant of the last move, and when it was asked for."""

    def after(self, seen: Observation) -> "Memory":
        """Return this with what a tick shows, whatever is then decided."""
        memory = replace(self, last_s=seen.now_s)
        if self.level is None:
            memory = replace(memory, level=seen.level, since_s=seen.now_s - SETTLE_S)
        elif self.level != seen.level:
            memory = replace(memory, level=seen.level, since_s=seen.now_s, calm_s=0.0)
        if not seen.changing and seen.now_s - memory.since_s >= FAST_S + TICK_S:
            memory = replace(memory, capacity=memory.capacity.learned(seen))
        if memory.descended_s is not None and seen.now_s - memory.descended_s >= PROOF_S:
            memory = replace(memory, descended_s=None, wait_s=WAIT_S)
        return memory

    def settling(self, seen: Observation) -> bool:
        """Tell whether what is seen may still be of the level before."""
        return seen.now_s - self.since_s < SETTLE_S

    def pressed(self, seen: Observation) -> "Memory":
        """Return this with something that asks for a sparser level."""
        was_quiet = seen.now_s - self.pressed_s >= QUIET_S
        return replace(
            self,
            pressing=self.pressing + 1,
            pressed_s=seen.now_s,
            calm_s=0.0,
            tried_at_p99_s=None if was_quiet else self.tried_at_p99_s,
        )

    def moved(self, seen: Observation, move: Move) -> "Memory":
        """Return this with a move that is asked for now."""
        asked = (move.level.variant_id, seen.now_s)
        if not move.sparser:
            return replace(self, asked=asked, calm_s=0.0, descended_s=seen.now_s)
        wait_s = self.wait_s if self.descended_s is None else min(2 * self.wait_s, LONGEST_WAIT_S)
        tried_at_p99_s = (seen.model_p99_s or 0.0) if move.further else self.tried_at_p99_s
        return replace(self, asked=asked, descended_s=None, wait_s=wait_s, tried_at_p99_s=tried_at_p99_s)
