"""One service per store: a lock that the operating system lets go of when its holder dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pruning.errors import StoreError


class StoreInUse(StoreError):
    """Another service holds the store."""


@contextmanager
def sole_service(store: Path) -> Iterator[None]:
    """Hold the store's lock for the block.

    Raises:
        StoreInUse: another service holds it.
        StoreError: the store cannot be written or locked.
    """
    try:
        store.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(store / "service.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"the store {store} cannot be written: {error}; choose a writable --store") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreInUse(
                f"another service is using the store {store}; stop it first, or give this one its own --store"
            ) from None
        except OSError as error:
            raise StoreError(
                f"the store {store} cannot be locked: {error}; choose a --store on a local disk"
            ) from error
        yield
    finally:
        os.close(descriptor)
