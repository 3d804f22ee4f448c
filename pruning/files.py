"""Writing so that nothing half-written is ever seen, and reading so that nothing altered is ever used."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20
ASIDE = ".aside"
"""How the name of everything ends that is being written or thrown away: ``.<name>.<random>.aside``."""
ASIDE_LIVES_S = 600.0
"""No write takes as long as this, so that an older aside has lost its writer."""


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """Return the hex digest of a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sync_file(path: Path) -> None:
    """Force a file's or a folder's contents to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` in one step: aside, synced, renamed.

    Raises:
        OSError: it cannot be written.
        TypeError, ValueError: JSON cannot hold ``value``.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=ASIDE)
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=1, allow_nan=False)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_file(path.parent)


@contextmanager
def new_folder(target: Path, record: str) -> Iterator[Path]:
    """Give a folder aside that becomes ``target`` when the block ends well and vanishes when it does not.

    ``record`` is the file without which a folder is worth nothing: its list of checksums. A ``target`` that has it
    was finished by another writer meanwhile and is kept: names are digests, so both hold the same. One that lost it
    is damaged and makes room.

    Raises:
        OSError: the folder cannot be written, or ``target`` is something else than a folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = _folder_aside(target)
    try:
        yield aside
        for file in aside.iterdir():
            sync_file(file)
        try:
            aside.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            if not (target / record).is_file():
                _take_the_place(aside, target, record)
        sync_file(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _take_the_place(aside: Path, target: Path, record: str) -> None:
    """Put ``aside`` where the damaged ``target`` stands, and throw that away; another writer may be faster."""
    damaged = _folder_aside(target)
    try:
        with suppress(FileNotFoundError):
            target.rename(damaged)
        try:
            aside.rename(target)
        except OSError:
            if not (target / record).is_file():
                raise
    finally:
        shutil.rmtree(damaged, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove ``folder``, for its readers in one step: moved aside, then deleted.

    Raises:
        OSError: it cannot be moved, and stays whole.
    """
    aside = _folder_aside(folder)
    try:
        folder.rename(aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _folder_aside(target: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=ASIDE))


def sweep_asides(root: Path, *, older_than_s: float = ASIDE_LIVES_S) -> list[Path]:
    """Remove what writers that were killed left aside in ``root`` and in the folders in it; return what went.

    Younger asides stay: another process may be writing them. What cannot be removed stays too.
    """
    latest = time.time() - older_than_s
    gone = []
    for path in (*root.glob(f".*{ASIDE}"), *root.glob(f"*/.*{ASIDE}")):
        with suppress(OSError):
            if path.lstat().st_mtime > latest:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            gone.append(path)
    return gone
