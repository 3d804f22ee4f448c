import os
import sys
from pathlib import Path

import pytest

from loadtests import priority


def test_the_generator_goes_first_and_its_session_while_it_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[int, ...]] = []
    session = tmp_path / "autogroup"
    session.write_text("/autogroup-25 nice -3\n")
    monkeypatch.setattr(os, "setpriority", lambda *words: asked.append(words))
    monkeypatch.setattr(priority, "AUTOGROUP", session)
    with pytest.raises(SystemExit), priority.going_first():
        assert asked == [(os.PRIO_PROCESS, 0, -20)]
        assert session.read_text() == "-20"
        sys.exit(2)
    assert session.read_text() == "-3"


def test_who_may_not_goes_on_as_usual(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    monkeypatch.setattr(priority, "AUTOGROUP", tmp_path / "none" / "autogroup")
    with priority.going_first():
        assert priority.told() == f"nice {os.getpriority(os.PRIO_PROCESS, 0)}"
