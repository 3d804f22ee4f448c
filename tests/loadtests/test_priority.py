import os
from pathlib import Path

import pytest

from loadtests import priority


def test_the_generator_and_its_session_go_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "setpriority", lambda *words: asked.append(words))
    monkeypatch.setattr(priority, "AUTOGROUP", tmp_path / "autogroup")
    priority.go_first()
    assert asked == [(os.PRIO_PROCESS, 0, -20)]
    assert (tmp_path / "autogroup").read_text() == "-20"


def test_who_may_not_goes_on_as_usual(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    monkeypatch.setattr(priority, "AUTOGROUP", tmp_path / "none" / "autogroup")
    priority.go_first()
    assert priority.told() == f"nice {os.getpriority(os.PRIO_PROCESS, 0)}"
