"""A note of each running service, so that commands on the same machine find its address and token."""

import json
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from service.sources import cache_home

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def note_path(port: int) -> Path:
    """Return where the service on ``port`` leaves its note."""
    return cache_home() / "running" / f"{port}.json"


def leave_note(port: int, url: str, token_file: Path | None) -> None:
    """Note this process's service: its address and the file that keeps its token (never the token)."""
    path = note_path(port)
    path.parent.mkdir(parents=True, exist_ok=True)
    note = {"url": url, "token_file": str(token_file) if token_file else None, "pid": os.getpid()}
    path.write_text(json.dumps(note), encoding="utf-8")


def remove_note(port: int) -> None:
    """Take the note back."""
    note_path(port).unlink(missing_ok=True)


def find_token(url: str) -> str | None:
    """Return the token of the service at ``url`` if it runs on this machine under this user.

    A note whose process is gone is passed over: somebody else may listen on its port by now, and must not be told.
    """
    for path in sorted((cache_home() / "running").glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):  # damaged or unreadable: as if it were not there
            note = json.loads(path.read_text(encoding="utf-8"))
            if _place(str(note["url"])) == _place(url) and _is_alive(note["pid"]):
                return Path(note["token_file"]).read_text(encoding="ascii").strip()
    return None


def _place(url: str) -> tuple[str | None, int | None]:
    """Return host and port, every name of the loopback interface as one."""
    parts = urlsplit(url)
    return "127.0.0.1" if parts.hostname in LOOPBACK else parts.hostname, parts.port


def _is_alive(pid: int) -> bool:
    """Tell whether a process of this user has that id."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
