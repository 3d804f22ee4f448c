"""What a controller tells the rollout when it begins."""

from service.events import Restarted
from service.limits import ControlLimits
from service.operations import Phase, RolloutState


def restarted(state: RolloutState, limits: ControlLimits, accuracy_floor: float, now: float) -> Restarted:
    """Return the event of a controller that begins with ``state``: no commit before every replica could be heard."""
    phase_s = limits.build_timeout_s if state.phase is Phase.BUILDING else limits.prepare_timeout_s
    if state.operation is not None and state.operation.canary is not None:
        phase_s += state.operation.canary.seconds
    return Restarted(
        accuracy_floor=accuracy_floor,
        now=now,
        hold_until=now + limits.lease_s,
        deadline=now + limits.lease_s + phase_s,
    )
