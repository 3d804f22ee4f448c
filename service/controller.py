"""The controller: turns requests, reports and time into events of the rollout, and its state into replicas' orders."""

import asyncio
import logging
from contextlib import suppress
from typing import Any

from pruning.spec import PruneSpec
from pruning.variants import VariantStore
from service.audit import Audit
from service.builds import Builds
from service.cascade_watch import CascadeWatch
from service.control_metrics import ControlMetrics
from service.control_view import ControlView
from service.durable import DurableRollout, EventFor
from service.errors import NotFound, NotReady
from service.event_log import EventLog
from service.events import Action, Announce, Broken, Built, Event, Reply, StartBuild
from service.fleet import Fleet
from service.limits import Clock, ControlLimits
from service.operations import Asker, Choice, Operation, RolloutState
from service.pilot import Pilot
from service.policy import Mode, Policy
from service.policy_desk import PolicyDesk
from service.protocol import Builder, Desired, ReplicaReport
from service.standing import Standing
from service.state import StateFile, StateUnwritable
from service.tasks import Tasks, repeat
from service.timed_events import TimedEvents
from service.watch import Watch

logger = logging.getLogger(__name__)


class VariantController:
    """Holds the desired state; replicas follow it by asking. One per service."""

    def __init__(
        self,
        *,
        limits: ControlLimits,
        desk: PolicyDesk,
        builder: Builder,
        state_file: StateFile,
        store: VariantStore,
        metrics: ControlMetrics,
        initial_variant: str,
        ladder: tuple[str, ...],
        metrics_address: str,
        clock: Clock | None = None,
    ) -> None:
        """Keep the parts; ``start`` reads the state.

        Args:
            limits: waiting times.
            desk: keeps the policy.
            builder: makes variants, away from here.
            state_file: where the state is kept.
            store: where the variants' manifests are read.
            metrics: of the control page.
            initial_variant: committed where nothing ever was; must be in the store.
            ladder: variants that every replica keeps loaded.
            metrics_address: ``host:port`` of the control page, shown to replicas as a peer; empty for none.
            clock: for tests.
        """
        self._limits = limits
        self._initial_variant = initial_variant
        self._desk = desk
        self._standing = Standing(store, ladder, lambda: desk.policy.accuracy_floor)
        self._clock = clock or Clock()
        self._fleet = Fleet(
            lease_s=limits.lease_s,
            ladder=ladder,
            metrics_address=metrics_address,
            policy=lambda: desk.policy,
            cascade_off=lambda: desk.cascade_off is not None,
        )
        self._rollout = DurableRollout(state_file, self._act, self._clock.wall)
        self._log = EventLog(round(1e3 * self._clock.wall()))
        self._audit = Audit(metrics, self._log, lambda: desk.policy, self._clock.wall)
        self._watch = Watch(
            manifest=store.manifest,
            desk=desk,
            ladder=ladder or (initial_variant,),
            metrics=metrics,
            prepare_timeout_s=limits.prepare_timeout_s,
        )
        self._cascades = CascadeWatch(desk, self._watch.evidence, metrics.cascades, self._log)
        self._events = TimedEvents(limits, desk, self._clock, self._standing)
        self._pilot = Pilot(
            desk=desk,
            fleet=self._fleet,
            store=store,
            ladder=ladder,
            ask=self._request_level,
            metrics=metrics.governor,
            monotonic=self._clock.monotonic,
        )
        self.view = ControlView(
            self._rollout, self._fleet, store, desk, self._watch.evidence, self._log, self._pilot, self._cascades
        )
        self._told: Desired | None = None
        self._tasks = Tasks()
        self._builds = Builds(builder, self._tasks, self._clock.wall, limits.prepare_timeout_s)
        self._ticker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the state, take up what was running, begin to keep time.

        Raises:
            StateFileError: the state file is damaged, or nothing was ever committed and it cannot be written.
            BelowFloor: nothing was ever committed and the initial variant is below the floor.
            pruning.errors.StoreError: nothing was ever committed and the initial variant is not in the store.
        """
        await self._rollout.begin(lambda: self._standing.first_state(self._initial_variant), self._events.restarted)
        for words in await asyncio.to_thread(self._standing.misgivings, self._rollout.state.committed):
            logger.warning("%s", words)
        self._ticker = self._tasks.spawn(repeat(self.tick, self._limits.tick_s, "a tick of the controller"))

    async def stop(self) -> None:
        """Stop keeping time and building; an operation that runs is taken up at the next start."""
        self._log.close()
        await self._tasks.cancel()
        await self._rollout.finish()

    def healthy(self) -> bool:
        """Tell whether the controller has started and still keeps time."""
        return self._ticker is not None and not self._ticker.done()

    async def sync(self, report: ReplicaReport, known_version: int) -> Desired:
        """Take a replica's report; return the desired state, at once if its version is not ``known_version``.

        Raises:
            NotReady: the controller is starting.
        """
        if self._fleet.hear(report, self._clock.monotonic()):
            await self._tasks.whole(self._hear_replicas())
        async with self._rollout.changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.poll_s):
                    await self._rollout.changed.wait_for(lambda: self._orders().version != known_version)
            return self._orders()

    async def request_change(
        self, spec: PruneSpec, expected_generation: int | None = None, canary_fraction: float | None = None
    ) -> Operation:
        """Return the operation that brings ``spec`` about: a new one, the running one, or the one that did.

        It is tried on ``canary_fraction`` of the requests first, by default on the policy's; 0 leaves that out.

        Raises:
            Conflict: another operation runs, or the governor turns the dial.
            PreconditionFailed: another generation than the expected one is committed.
            NotReady: the service is starting or stopping, or its state cannot be written.
        """
        self._pilot.check_resting()
        return await self._request(lambda state: self._events.change(state, spec, expected_generation, canary_fraction))

    async def request_rollback(self, expected_generation: int | None = None) -> Operation:
        """Return the change that ran, taken back; or, where none ran, the one that brings the previous variant back.

        A governor that turned the dial rests from then on, or it would undo that: the mode is ``manual``.

        Raises:
            PreconditionFailed: another generation than the expected one is committed.
            Conflict: nothing runs, and there is no previous variant, or it is below the floor.
            NotReady: the service is starting or stopping, or its state cannot be written.
        """
        return await self._tasks.whole(self._roll_back(expected_generation))

    def operation(self, operation_id: str) -> Operation:
        """Return a running or remembered operation.

        Raises:
            NotFound: there is none of this id.
        """
        operation = self._rollout.state.find(operation_id)
        if operation is None:
            raise NotFound(f"There is no operation {operation_id}; the last hundred are remembered.")
        return operation

    async def wait(self, operation_id: str, timeout_s: float) -> Operation:
        """Return the operation once it ended and, if committed, every live replica follows; or after ``timeout_s``.

        Raises:
            NotFound: there is none of this id.
        """
        async with self._rollout.changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._rollout.changed.wait_for(lambda: self._settled(operation_id))
        return self.operation(operation_id)

    async def change_policy(self, members: Any, expected: str | None = None) -> Policy:
        """Set some members of the policy, on disk first, and tell the replicas; return what holds from now on.

        Raises:
            PreconditionFailed: another policy holds than the one whose ``etag`` is expected.
            Invalid: a member that cannot be valid or contradicts another.
            NotReady: it cannot be written.
        """
        return await self._tasks.whole(self._change_policy(members, expected))

    async def drain(self) -> None:
        """Ask every replica to finish what is in flight and to take nothing new; refuse changes from now on."""
        async with self._rollout.changed:
            self._fleet.drain()
            self._tell()

    async def tick(self) -> None:
        """Let leases run out, deadlines pass and unwritten ends be written. The controller calls it by itself."""
        self._fleet.sweep(self._clock.monotonic())
        await self._hear_replicas()
        await self._rollout.apply_or_end(lambda state: self._fleet.time_passed(state, self._clock.wall()))
        await self._rollout.flush()
        await self._pilot.tick(self._rollout.state, self._clock.wall())

    async def _hear_replicas(self) -> None:
        """Let the rollout go on if the replicas' reports allow it, and tell what is new."""
        await self._rollout.apply_or_end(lambda state: self._fleet.reported(state, self._clock.wall()))
        self._watch.hear(self._fleet)
        await self._rollout.apply_or_end(lambda state: self._watch.finding(state, self._clock.wall()))
        await self._cascades.look()
        async with self._rollout.changed:
            self._tell()

    async def _roll_back(self, expected_generation: int | None) -> Operation:
        with self._pilot.held():
            operation = await self._request(lambda _: self._events.rollback(expected_generation))
            if self._desk.policy.mode is Mode.AUTO:
                await self._change_policy({"mode": Mode.MANUAL})
            return operation

    async def _change_policy(self, members: Any, expected: str | None = None) -> Policy:
        policy = await self._desk.change(members, expected)
        self._log.append("policy", policy.as_dict())
        async with self._rollout.changed:
            self._tell()
        return policy

    async def _request(self, event_for: EventFor) -> Operation:
        if self._fleet.draining:
            raise NotReady("The service is stopping; it takes no changes.", retry_after_s=10)
        try:
            actions = await self._rollout.apply(event_for)
        except StateUnwritable as error:
            logger.error("request refused: %s", error)
            raise NotReady(f"Nothing was changed: {error}.", retry_after_s=5) from error
        return next(action.operation for action in actions if isinstance(action, Reply))

    async def _request_level(self, choice: Choice, reason: str) -> Operation:
        def chosen(_: RolloutState) -> Event:
            self._pilot.check_governing()
            return self._events.level(choice, Asker.GOVERNOR, reason)

        return await self._request(chosen)

    def _act(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            if isinstance(action, StartBuild):
                self._builds.start(
                    action.operation_id,
                    action.spec,
                    in_use=self._fleet.in_use(self._rollout.state),
                    accuracy_floor=lambda: self._desk.policy.accuracy_floor,
                    report=self._built,
                )
            elif isinstance(action, Announce):
                self._announce(action.operation)
        self._tell()

    def _announce(self, operation: Operation) -> None:
        """Tell of a phase, and let go of a build that nobody waits for."""
        self._audit.entered(operation)
        if operation.finished:
            self._builds.let_go()

    async def _built(self, outcome: Built | Broken) -> None:
        """Take note of how a build went, unless its operation has ended meanwhile."""
        if isinstance(outcome, Built):
            self._standing.was_built(outcome.variant_id)
        await self._rollout.apply_or_end(
            lambda state: outcome if state.operation and state.operation.id == outcome.operation_id else None
        )

    def _tell(self) -> None:
        """Wake whoever waits, if the orders have changed or the replicas have got somewhere."""
        state = self._rollout.state
        orders = self._fleet.orders(state)
        if self._audit.look(state, self._fleet) or orders != self._told:
            self._told = orders
            self._rollout.changed.notify_all()

    def _orders(self) -> Desired:
        return self._fleet.orders(self._rollout.state)

    def _settled(self, operation_id: str) -> bool:
        """Tell whether an operation has ended and is in effect wherever it shall be."""
        operation = self.operation(operation_id)
        return operation.finished and self._fleet.reached(operation.generation or 0) == (operation.generation or 0)
