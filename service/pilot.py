"""The governor at work: it is shown what replicas report, and what it decides becomes a change like any other."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pruning.variants import VariantStore
from service.errors import Conflict, NotReady
from service.fleet import Fleet
from service.governor.decision import decide
from service.governor.levels import Bounds, Level
from service.governor.memory import Memory
from service.governor.moves import Move, Stay
from service.governor.observation import Observation, Readings
from service.governor_document import governor_document
from service.governor_metrics import GovernorMetrics
from service.operations import Asker, Cause, Choice, Operation, RolloutState
from service.policy import Mode, Policy
from service.policy_desk import PolicyDesk
from service.resident_levels import level_of, resident_levels

BARRED_S = 300.0
"""Seconds for which a level is left out that a replica could not load."""

logger = logging.getLogger(__name__)


class Pilot:
    """Asks the governor at every tick while the policy says ``auto``. Its memory ends with that mode."""

    def __init__(
        self,
        *,
        desk: PolicyDesk,
        fleet: Fleet,
        store: VariantStore,
        ladder: tuple[str, ...],
        ask: Callable[[Choice, str], Awaitable[Operation]],
        metrics: GovernorMetrics,
        monotonic: Callable[[], float],
    ) -> None:
        """Keep the parts; nothing is read before the first tick in mode ``auto``.

        Args:
            desk: keeps the policy.
            fleet: the replicas' reports.
            store: where the levels' manifests are read.
            ladder: the variants that every replica keeps loaded, dense in the usual precision first.
            ask: begins the change to a level, for a reason.
            metrics: of the control page.
            monotonic: the time in seconds.
        """
        self._desk = desk
        self._fleet = fleet
        self._store = store
        self._ladder = ladder
        self._ask = ask
        self._metrics = metrics
        self._monotonic = monotonic
        self._levels: dict[Level, Choice] = {}
        self._committed: tuple[str, Level] | None = None
        """The level of the variant that was committed at the last tick."""
        self._memory, self._readings = Memory(), Readings()
        self._seen: Observation | None = None
        self._decision: Move | Stay | None = None
        self._held = 0
        """Operators who are taking over."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let an operator take over while the block runs: the governor asks for nothing."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def check_governing(self) -> None:
        """Return if the governor turns the dial still: an operator may have taken over while it looked.

        Raises:
            Conflict: it does not.
        """
        if self._held or self._desk.policy.mode is not Mode.AUTO:
            raise Conflict("An operator has taken over.")

    def check_resting(self) -> None:
        """Return if an operator's change stands against nothing.

        Raises:
            Conflict: the governor turns the dial.
        """
        if self._desk.policy.mode is Mode.AUTO:
            raise Conflict(
                "The governor turns the dial (mode 'auto'), and would turn it back. Take over first, with "
                'PUT /admin/policy {"mode": "manual"}, or set its min_sparsity and max_sparsity.'
            )

    async def tick(self, state: RolloutState, now: float) -> None:
        """Look, and ask for another level if the governor wants one; ``now`` is in Unix seconds."""
        policy = self._desk.policy
        if policy.mode is not Mode.AUTO:
            self._rest()
            return
        if not self._levels:
            self._levels = await asyncio.to_thread(resident_levels, self._store, self._ladder)
        self._readings.take({report.replica_id: report.load for report in self._fleet if report.load is not None})
        seen = self._readings.observe(
            now_s=self._monotonic(),
            level=await self._level(state.committed),
            changing=state.operation is not None or self._fleet.reached(state.generation) != state.generation,
        )
        if seen is not None:
            barred = frozenset(state.distrusted) | _not_loaded(state, now)
            await self._decide(seen, _bounds(policy, tuple(self._levels), barred))

    def document(self) -> dict[str, Any] | None:
        """Return what ``GET /admin/sparsity`` shows of the governor; None while the operator turns the dial."""
        if self._seen is None or self._decision is None:
            return None
        return governor_document(self._seen, self._decision, self._memory.capacity, self._levels)

    async def _decide(self, seen: Observation, bounds: Bounds) -> None:
        self._memory, decision = decide(self._memory, seen, bounds)
        self._metrics.decided(seen, decision, self._memory.capacity.of(seen.level, seen))
        before, self._decision, self._seen = self._decision, decision, seen
        if isinstance(decision, Move):
            await self._carry_out(decision)
        elif before is None or before.reason.why is not decision.reason.why:
            logger.info("governor level=%s why=%s: %s", seen.level.name, decision.reason.why, decision.reason.words)

    async def _carry_out(self, move: Move) -> None:
        logger.info("governor goes to level=%s why=%s: %s", move.level.name, move.reason.why, move.reason.words)
        try:
            await self._ask(self._levels[move.level], move.reason.words)
        except (Conflict, NotReady) as error:  # an operator was faster, or the disk is full: the next tick looks again
            logger.warning("governor: the change was refused: %s", error)
        else:
            self._metrics.moved(move)

    async def _level(self, committed: Choice) -> Level:
        """Return the level of what answers, which need not be on the ladder."""
        if self._committed is None or self._committed[0] != committed.variant_id:
            known = {level.variant_id: level for level in self._levels}
            level = known.get(committed.variant_id)
            if level is None:
                manifest = await asyncio.to_thread(self._store.manifest, committed.variant_id)
                level = level_of(manifest, items_per_s=manifest.speed.items_per_s)
            self._committed = committed.variant_id, level
        return self._committed[1]

    def _rest(self) -> None:
        self._memory, self._readings, self._seen, self._decision = Memory(), Readings(), None, None
        self._metrics.rests()


def _bounds(policy: Policy, levels: tuple[Level, ...], barred: frozenset[str]) -> Bounds:
    assert policy.slo_p99_ms is not None  # a policy in mode auto has it
    return Bounds(
        levels=levels,
        slo_p99_s=policy.slo_p99_ms / 1e3,
        accuracy_floor=policy.accuracy_floor,
        min_sparsity=policy.min_sparsity,
        max_sparsity=policy.max_sparsity,
        barred=barred,
    )


def _not_loaded(state: RolloutState, now: float) -> frozenset[str]:
    """Return the levels that the governor lately asked for and a replica could not load."""
    return frozenset(
        operation.variant_id
        for operation in state.history
        if operation.asked_by is Asker.GOVERNOR
        and operation.error_type is Cause.REPLICA
        and operation.variant_id is not None
        and now - (operation.finished_at or 0.0) < BARRED_S
    )
