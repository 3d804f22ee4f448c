"""A note of each running service, so that commands on the same machine find its address and token."""

import json
from pathlib import Path

from service.sources import cache_home


def note_path(port: int) -> Path:
    """Return where the service on ``port`` leaves its note."""
    return cache_home() / "running" / f"{port}.json"


def leave_note(port: int, url: str, token_file: Path | None) -> None:
    """Note the service's address and the file that keeps its token (never the token)."""
    path = note_path(port)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"url": url, "token_file": str(token_file) if token_file else None}), encoding="utf-8")


def remove_note(port: int) -> None:
    """Take the note back."""
    note_path(port).unlink(missing_ok=True)


def find_token(url: str) -> str | None:
    """Return the token of the service at ``url`` if it runs on this machine under this user."""
    for path in sorted((cache_home() / "running").glob("*.json")):
        note = json.loads(path.read_text(encoding="utf-8"))
        if note["url"] == url.rstrip("/") and note["token_file"] is not None:
            token_file = Path(note["token_file"])
            if token_file.is_file():
                return token_file.read_text(encoding="ascii").strip()
    return None
