import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.running import Found, find_service, leave_note, note_path, remove_note

URL = "http://127.0.0.1:8000"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "admin.token"
    path.write_text("t0ken\n")
    return path


def find_token(url: str) -> str | None:
    found = find_service(url)
    return found.token if found else None


def rewrite(port: int, **changes: Any) -> None:
    note = json.loads(note_path(port).read_text())
    note_path(port).write_text(json.dumps(note | changes))


@pytest.mark.parametrize(
    "url", [URL, URL + "/", "http://localhost:8000", "http://LOCALHOST:8000", "http://[::1]:8000", URL + "/admin"]
)
def test_the_token_of_a_running_service_is_found_by_its_address(url: str, token_file: Path) -> None:
    leave_note(8000, URL, token_file)
    assert find_service(url) == Found(URL, "t0ken")


def test_it_is_found_from_any_folder(token_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(token_file.parent)
    leave_note(8000, URL, Path(token_file.name))
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    assert find_service(URL) == Found(URL, "t0ken")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8001", "http://10.0.0.7:8000", "http://example.org:8000", "", "x"])
def test_nobody_else_gets_it(url: str, token_file: Path) -> None:
    leave_note(8000, URL, token_file)
    assert find_token(url) is None


def test_the_note_never_holds_the_token(token_file: Path) -> None:
    leave_note(8000, URL, token_file)
    assert "t0ken" not in note_path(8000).read_text()


def test_each_port_has_its_own_note(token_file: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    leave_note(8000, URL, token_file)
    leave_note(9000, "http://127.0.0.1:9000", tmp_path / "other")
    assert (find_token(URL), find_token("http://127.0.0.1:9000")) == ("t0ken", "other")
    remove_note(8000)
    remove_note(8000)
    assert (find_token(URL), find_token("http://127.0.0.1:9000")) == (None, "other")


def test_a_note_whose_process_is_gone_tells_nothing(token_file: Path) -> None:
    leave_note(8000, URL, token_file)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    rewrite(8000, pid=ended.pid)
    assert find_token(URL) is None
    rewrite(8000, pid=os.getpid())
    assert find_token(URL) == "t0ken"


def test_without_a_note_or_a_token_file_there_is_none(token_file: Path) -> None:
    assert find_token(URL) is None
    leave_note(8000, URL, None)
    assert find_token(URL) is None
    leave_note(8000, URL, token_file)
    token_file.unlink()
    assert find_token(URL) is None


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '"x"', '{"url": 1}', '{"url": "http://127.0.0.1:8000"}'])
def test_a_damaged_note_hides_no_other(damage: str, token_file: Path) -> None:
    leave_note(9000, URL, token_file)
    note_path(1).write_text(damage)
    assert find_token(URL) == "t0ken"
