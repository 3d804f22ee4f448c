import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pruning.errors import PruningError
from service import engine_choice, launcher
from service.launcher import STOPPED_EARLY, _check_port, launch
from service.running import note_path
from service.settings import EngineName, Settings
from service.sources import Sources
from service.stop_signals import StopSignals


class FakeService:
    """A Ray service that writes down what is done to it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.serving = False
        self.on_deploy: Callable[[], None] = lambda: None
        self.on_stop: Callable[[], None] = lambda: None

    def connect(self) -> None:
        self.calls.append("connect")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray takes it for itself

    def deploy(self, url: str) -> None:
        self.calls.append("deploy")
        self.on_deploy()

    def stop(self, drain_s: float) -> None:
        self.calls.append("stop")
        self.on_stop()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeService:
    """What ``launch`` starts in place of Ray; it serves for no time."""
    service = FakeService()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(launcher, "resolve", lambda settings: Sources(*[tmp_path] * 3, tmp_path / "store"))
    monkeypatch.setattr(launcher, "_prepare", lambda settings, sources: ((), ""))
    monkeypatch.setattr(launcher, "set_environment", lambda *args, **kwargs: None)
    monkeypatch.setattr(launcher, "RayService", lambda *args: service)
    monkeypatch.setattr(StopSignals, "wait", StopSignals.hold)
    return service


@pytest.fixture
def settings() -> Settings:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Settings(port=probe.getsockname()[1])


def test_a_note_that_cannot_be_left_does_not_end_the_service(
    service: FakeService, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(os.environ["XDG_CACHE_HOME"])).write_text("a file where a folder should be")
    assert launch(settings, as_json=False) == 0
    assert service.calls == ["connect", "deploy", "stop"]
    said = capsys.readouterr().err
    assert "warning: the note of this service" in said and "serving on" in said


def test_the_service_is_stopped_first_and_its_note_taken_back_whatever_happens(
    service: FakeService, settings: Settings
) -> None:
    def breaks() -> None:
        assert note_path(settings.port).exists()
        raise PruningError("it would not end")

    service.on_stop = breaks
    with pytest.raises(PruningError, match="it would not end"):
        launch(settings, as_json=False)
    assert not note_path(settings.port).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_deployment_that_hangs_ends_it(
    service: FakeService, settings: Settings, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def hangs() -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)

    service.on_deploy = hangs
    service.on_stop = lambda: os.kill(os.getpid(), number)  # impatience does not break off the end
    assert launch(settings, as_json=False) == STOPPED_EARLY
    assert service.calls == ["connect", "deploy", "stop"]
    assert "stopped before it served" in capsys.readouterr().err


def test_a_signal_once_it_may_have_answered_is_a_stop_like_any_other(
    service: FakeService, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    def is_asked_before_it_says_hello() -> None:
        service.serving = True
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    service.on_deploy = is_asked_before_it_says_hello
    assert launch(settings, as_json=False) == 0
    assert service.calls == ["connect", "deploy", "stop"]
    assert "stopping: requests in flight are finished first" in capsys.readouterr().err


def test_an_engine_that_is_not_installed_is_refused_before_anything_is_done(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_choice, "openvino_installed", lambda: False)
    monkeypatch.setattr(launcher, "resolve", lambda settings: pytest.fail("the store was looked for"))
    with pytest.raises(PruningError, match=r"pip install 'sparsedial\[openvino\]'"):
        launch(Settings(engine=EngineName.OPENVINO), as_json=False)
    assert service.calls == []


def test_a_port_in_use_and_a_host_of_somebody_else_have_different_remedies() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PruningError, match="choose another --port"):
            _check_port("127.0.0.1", taken.getsockname()[1])
    for host in ("::1", "203.0.113.7", "no.such.host.invalid"):
        with pytest.raises(PruningError, match="--host wants an IPv4 address of this machine"):
            _check_port(host, 8000)
