"""What a restart, or a floor that is raised meanwhile, makes of an operation under way."""

from dataclasses import replace

import pytest

from service.events import Announce, Restarted, StartBuild
from service.operations import Cause, Phase
from service.rollout import advance
from tests.service.control_parts import HALF
from tests.service.rollout_parts import EVENTS, after, in_phase, reported


def test_a_restart_starts_the_build_again() -> None:
    state, actions = advance(in_phase(Phase.BUILDING), EVENTS[Restarted])
    assert StartBuild("op1", HALF) in actions
    assert state.operation is not None and state.operation.deadline == 80.0


def test_a_restart_resumes_a_preparation_after_one_lease() -> None:
    state, actions = advance(in_phase(Phase.PREPARING), EVENTS[Restarted])
    assert not any(isinstance(action, StartBuild) for action in actions)
    assert after(state, reported(now=22.9)).generation == 1
    assert after(state, reported(now=23.0)).generation == 2


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.TRYING])
def test_a_floor_that_is_raised_meanwhile_is_held_by_what_is_committed(phase: Phase) -> None:
    before = in_phase(phase)
    assert before.operation is not None
    ready = replace(before, operation=replace(before.operation, passed=True))
    state, _ = advance(ready, reported(floor=0.89))
    ended = state.history[-1]
    assert (ended.phase, ended.error_type, state.generation) == (Phase.ROLLED_BACK, Cause.ACCURACY_FLOOR, 1)
    assert advance(ready, reported(floor=0.88))[0].generation == 2


def test_a_preparation_below_a_raised_floor_is_not_resumed() -> None:
    before = in_phase(Phase.PREPARING)
    state, actions = advance(before, replace(EVENTS[Restarted], accuracy_floor=0.89))
    ended = state.find("op1")
    assert ended is not None and actions == (Announce(ended),)
    assert (ended.phase, ended.error_type) == (Phase.ROLLED_BACK, Cause.ACCURACY_FLOOR)
    assert ended.error is not None and "0.8800" in ended.error and "0.8900" in ended.error
    assert (state.operation, state.generation, state.committed) == (None, 1, before.committed)
    assert state.hold_until == 23.0
