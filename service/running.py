"""A note of each running service, so that commands on the same machine find its address and token."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
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
    note = {"url": url, "token_file": str(token_file.resolve()) if token_file else None, "pid": os.getpid()}
    path.write_text(json.dumps(note), encoding="utf-8")


def remove_note(port: int) -> None:
    """Take the note back."""
    note_path(port).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Found:
    """A service of this user on this machine."""

    url: str
    """As the service noted it: the one place that may be told the token."""
    token: str = field(repr=False)


def find_service(url: str) -> Found | None:
    """Return the service that ``url`` means if it runs on this machine under this user and has a token file.

    Every name of the loopback interface means it, though somebody else may listen behind another name than the one
    it noted. A note whose process is gone is passed over: its port may be somebody else's by now.
    """
    for path in sorted((cache_home() / "running").glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):  # damaged or unreadable: as if it were not there
            note = json.loads(path.read_text(encoding="utf-8"))
            if _place(str(note["url"])) == _place(url) and _is_alive(note["pid"]):
                return Found(note["url"], Path(note["token_file"]).read_text(encoding="ascii").strip())
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
