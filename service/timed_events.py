"""Requests and restarts as events of the rollout, with the time, the policy and the limits that then hold."""

from dataclasses import dataclass

from pruning.spec import PruneSpec
from service.events import ChangeRequested, LevelChosen, Restarted, RollbackRequested
from service.limits import Clock, ControlLimits
from service.operations import Asker, Choice, Phase, RolloutState, new_operation_id
from service.policy_desk import PolicyDesk
from service.standing import Standing


@dataclass(frozen=True, slots=True)
class TimedEvents:
    """Makes events that happen now; every request gets an id of its own."""

    limits: ControlLimits
    desk: PolicyDesk
    clock: Clock
    standing: Standing

    def change(
        self, state: RolloutState, spec: PruneSpec, expected_generation: int | None, canary_fraction: float | None
    ) -> ChangeRequested:
        """Return that an operator wants ``spec`` served, tried on a share of the requests, by default the policy's."""
        now = self.clock.wall()
        return ChangeRequested(
            operation_id=new_operation_id(),
            spec=spec,
            committed_stands=self.standing.stands(state.committed),
            now=now,
            deadline=now + self.limits.build_timeout_s,
            expected_generation=expected_generation,
            canary=self.desk.policy.canary(canary_fraction),
            untried=canary_fraction == 0.0,
        )

    def rollback(self, expected_generation: int | None) -> RollbackRequested:
        """Return that an operator wants the last change undone."""
        now = self.clock.wall()
        return RollbackRequested(
            operation_id=new_operation_id(),
            accuracy_floor=self.desk.policy.accuracy_floor,
            now=now,
            deadline=now + self.limits.prepare_timeout_s,
            expected_generation=expected_generation,
        )

    def level(self, choice: Choice, asked_by: Asker, reason: str) -> LevelChosen:
        """Return that the service itself wants a loaded level served."""
        now = self.clock.wall()
        return LevelChosen(
            operation_id=new_operation_id(),
            choice=choice,
            asked_by=asked_by,
            reason=reason,
            accuracy_floor=self.desk.policy.accuracy_floor,
            now=now,
            deadline=now + self.limits.prepare_timeout_s,
        )

    def restarted(self, state: RolloutState) -> Restarted:
        """Return that the controller begins in ``state``: commits are held until every live replica can be heard."""
        now, limits = self.clock.wall(), self.limits
        phase_s = limits.build_timeout_s if state.phase is Phase.BUILDING else limits.prepare_timeout_s
        if state.operation is not None and state.operation.canary is not None:
            phase_s += state.operation.canary.seconds
        return Restarted(
            accuracy_floor=self.desk.policy.accuracy_floor,
            now=now,
            hold_until=now + limits.lease_s,
            deadline=now + limits.lease_s + phase_s,
        )
