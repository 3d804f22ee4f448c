"""A service of the measurement's own: ``sparsedial serve`` on free loopback ports, on a copy of the store, then gone.

The copy is made of hard links where it can be, and has no state: turning its dial changes nothing for a service that
runs, or will run, on the store itself.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from service.bench.errors import BenchError
from service.fast_path import free_ports
from service.settings import ENV_PREFIX
from service.sources import TOKEN_FILE, Sources
from service.state import STATE
from service.stop_signals import StopSignals

START_LIMIT_S = 300.0
STOP_LIMIT_S = 60.0
POLL_S = 0.2
LOG_CHARACTERS = 2000
"""Of the service's log, told when it does not come up."""
KEPT = ("THREADS", "REPLICAS", "INGRESS", "MAX_BATCH_TOKENS", "MAX_QUEUE_TOKENS", "SCORER", "PATTERN")
"""Settings of the environment that the service is given; others are left out: addresses, secrets, what flags say."""
OWN_TO_A_SERVICE = (STATE, TOKEN_FILE, "service.lock")
"""What a store has of the service that runs on it."""


@dataclass(frozen=True, slots=True)
class OwnService:
    """A service that answers."""

    url: str
    token: str = field(repr=False)


@contextmanager
def own_service(sources: Sources, flags: Sequence[str], tell: Callable[[str], None]) -> Iterator[OwnService]:
    """Serve a copy of the prepared store for the block. SIGTERM ends the block as Ctrl-C does.

    Raises:
        BenchError: it did not come up; the end of its log is in the message.
    """
    with TemporaryDirectory(prefix="sparsedial-bench-", ignore_cleanup_errors=True) as folder, StopSignals() as signals:
        store, log = Path(folder) / "store", Path(folder) / "serve.log"
        tell("copying the store")
        copy_store(sources.store, store)
        (port,) = free_ports(1)
        command = [
            *(sys.executable, "-m", "service.entry", "serve", str(sources.model), "--port", str(port)),
            *("--train", str(sources.train), "--eval", str(sources.evaluation), "--store", str(store), *flags),
        ]
        tell("starting")
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command, env=environment_of(os.environ, folder), stdout=stream, stderr=stream, start_new_session=True
            )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(process, url, log)
            yield OwnService(url, (store / TOKEN_FILE).read_text(encoding="ascii").strip())
        finally:
            signals.hold()
            _stop(process)


def copy_store(source: Path, target: Path) -> None:
    """Copy what a service needs of a store, without the state of the one that runs there.

    Raises:
        BenchError: it cannot be copied.
    """

    def linked(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:  # another file system, or one without links
            shutil.copy2(one, other)

    try:
        shutil.copytree(source, target, copy_function=linked, ignore=shutil.ignore_patterns(*OWN_TO_A_SERVICE, ".*"))
    except (OSError, shutil.Error) as error:
        raise BenchError(f"the store {source} could not be copied: {error}; free space, or give --no-http") from error


def environment_of(environment: Mapping[str, str], cache: str) -> dict[str, str]:
    """Return the environment of the service: of our settings only some, no floor, and a cache directory of its own."""
    kept = {ENV_PREFIX + name for name in KEPT}
    own = {name: value for name, value in environment.items() if not name.startswith(ENV_PREFIX) or name in kept}
    # Every level is to be measured, those too that no service would promote.
    return own | {f"{ENV_PREFIX}ACCURACY_FLOOR": "0", "XDG_CACHE_HOME": cache}


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return once both applications answer.

    Raises:
        BenchError: the process ended, or did not answer in time.
    """
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchError(f"the service ended with {process.returncode} before it served:\n{_end_of(log)}")
        with suppress(httpx.TransportError):
            if all(httpx.get(url + path, timeout=5).status_code == 200 for path in ("/health", "/admin/health")):
                return
        time.sleep(POLL_S)
    raise BenchError(f"the service did not answer within {START_LIMIT_S:g} s:\n{_end_of(log)}")


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:].strip()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the service, in order if it will."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # a session of its own: whatever it started
        process.wait()
