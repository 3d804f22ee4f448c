import time

import pytest

from service.limits import Clock


def test_the_wall_clock_does_not_follow_a_step_of_the_systems_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    before = clock.wall()
    assert before == pytest.approx(time.time(), abs=60)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert clock.wall() >= before
