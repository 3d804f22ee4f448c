"""The processes of one service on this machine, as Linux tells of them. Nothing here speaks to the service.

Only processes below the one that was started as ``sparsedial serve`` are ever found, so that no other service, and
nobody else's Ray, can be met by a signal.
"""

import json
import os
import random
import signal
from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from loadtests.errors import LoadTestError

PROC = Path("/proc")


class Part(StrEnum):
    """What a service is made of, as far as it is one process that may die."""

    REPLICA = "replica"
    """Answers requests."""
    CONTROLLER = "controller"
    """Holds the desired state."""
    INGRESS = "ingress"
    """HAProxy, or the default proxy where there is none."""
    BUILDER = "builder"
    """Cuts and judges variants."""


_TITLES = {
    Part.REPLICA: ("ray::ServeReplica:model:Model",),
    Part.CONTROLLER: ("ray::ServeReplica:control:Control",),
    Part.INGRESS: ("/haproxy ", "ray::ProxyActor"),
    Part.BUILDER: ("ray::VariantBuilder",),
}
"""What the title of each contains; of several the first that is there."""


def noted_pid(url: str) -> int:
    """Return the process of the service on the port of ``url``, as it noted it in this user's cache folder.

    Raises:
        LoadTestError: there is no such note, or its process is gone.
    """
    port = urlsplit(url).port
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    note = home / "sparsedial" / "running" / f"{port}.json"
    try:
        pid = int(json.loads(note.read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoadTestError(f"{note} does not say which process serves {url}; give --pid") from error
    return checked_pid(pid)


def checked_pid(pid: int) -> int:
    """Return ``pid`` if it is a running ``sparsedial serve``.

    Raises:
        LoadTestError: it is not.
    """
    words = _title(pid).split()
    if "serve" not in words or not any(word.endswith("sparsedial") for word in words):
        raise LoadTestError(f"process {pid} is no running 'sparsedial serve'; give its --pid")
    return pid


def descendants(root: int) -> dict[int, str]:
    """Return the title of every process below ``root``, by its id."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                # The name, in brackets, may hold anything; the parent's id is the second word after it.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: dict[int, str] = {}
    waiting = [root]
    while waiting:
        for pid in children.get(waiting.pop(), []):
            found[pid] = _title(pid)
            waiting.append(pid)
    return found


def parts_of(root: int, part: Part) -> list[int]:
    """Return the ids of the processes that are ``part`` of the service below ``root``, ascending."""
    below = descendants(root)
    for words in _TITLES[part]:
        if found := sorted(pid for pid, title in below.items() if words in title):
            return found
    return []


def require_parts(root: int, parts: Iterable[Part]) -> None:
    """Return if the service below ``root`` has a process of every one of ``parts``.

    Raises:
        LoadTestError: it has not.
    """
    for part in parts:
        if not parts_of(root, part):
            raise LoadTestError(f"process {root} has no {part} below it; is it the 'sparsedial serve' of this URL?")


def kill_one(root: int, part: Part, draw: random.Random) -> int:
    """Kill one process of ``part`` as a machine that fails would (SIGKILL); return its id.

    Raises:
        LoadTestError: there is none.
    """
    require_parts(root, [part])
    pid = draw.choice(parts_of(root, part))
    os.kill(pid, signal.SIGKILL)
    return pid


def _title(pid: int) -> str:
    """Return the command line of a process; empty where it is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
